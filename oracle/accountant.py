"""Keeps what our transactions have cost: all that are final, whether they succeeded or not."""

from sqlalchemy import select

from oracle.facts import Chain
from oracle.store.database import Store
from oracle.store.tables import FeeRow, TransactionRow
from oracle.transactions import TransactionState

BATCH = 50
"""Transactions looked up in one round."""


class Accountant:
    """Asks the chain for the cost of each mined transaction, once."""

    def __init__(self, store: Store, chain: Chain) -> None:
        self._store = store
        self._chain = chain

    def tick(self) -> bool:
        """Look up some. Returns whether there may be more. Raises ChainUnavailable."""
        mined = TransactionRow.state.in_((TransactionState.FINAL, TransactionState.REVERTED))
        unknown = TransactionRow.hash.not_in(select(FeeRow.transaction))
        query = select(TransactionRow.hash).where(mined, unknown).limit(BATCH)
        with self._store.read() as session:
            hashes = list(session.scalars(query))
        fees = {hash_: self._chain.fee(hash_) for hash_ in hashes}
        known = {hash_: wei for hash_, wei in fees.items() if wei is not None}
        if known:
            with self._store.write() as session:
                for hash_, wei in known.items():
                    session.merge(FeeRow(transaction=hash_, wei=wei))
        return len(known) == BATCH
