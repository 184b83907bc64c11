"""The store's part of reconciling: its facts and receipts against the chain's events."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from web3 import Web3

from oracle.decide import Reason
from oracle.messages import JobState, Status
from oracle.store.database import Store
from oracle.store.tables import CursorRow, JobRow, ReceiptRow
from settlement.contracts import JobState as VaultState
from settlement.deployment import Deployment
from settlement.history import asking
from settlement.ledger import Ledger
from settlement.reconcile import Comparison, History, LoaderCount, Reconciliation
from settlement.reconcile import reconcile as without_store
from settlement.types import to_hex
from settlement.verify import ReceiptBundle

_STATES = {
    VaultState.OPEN: JobState.UNASSIGNED,
    VaultState.ASSIGNED: JobState.OPEN,
    VaultState.CANCELLING: JobState.CANCELLING,
    VaultState.CLOSED: JobState.CLOSED,
}


class _Stored:
    """The store as it was at one moment."""

    def __init__(self, store: Store) -> None:
        with store.read() as session:
            self.cursor = session.get(CursorRow, 1)
            self.jobs = {row.job_id: row for row in session.scalars(select(JobRow))}
            self.receipts = list(session.scalars(select(ReceiptRow)))


def reconcile(
    w3: Web3,
    deployment: Deployment,
    *,
    store: Store,
    bundles: Sequence[ReceiptBundle] = (),
    counts: Sequence[LoaderCount] = (),
    block: int | None = None,
) -> Reconciliation:
    """`settlement.reconcile.reconcile`, and the store as of the block that its facts reach to.

    Raises:
        RaphaError: when the chain cannot be asked.
        sqlalchemy.exc.SQLAlchemyError: when the store cannot be.
    """
    stored = _Stored(store)

    def further(history: History, comparison: Comparison) -> None:
        _compare_store(w3, stored, history, comparison)

    return without_store(
        w3, deployment, bundles=bundles, counts=counts, block=block, further=further
    )


def _compare_store(w3: Web3, stored: _Stored, history: History, comparison: Comparison) -> None:
    cursor = stored.cursor
    if cursor is None:
        comparison.equal("the store", "facts", store="none yet", events="there are")
        return
    reach = min(cursor.block, history.block)
    comparison.equal("the store", "the block it reaches to", store=cursor.block, events=reach)
    with asking():
        found = bytes(w3.eth.get_block(cursor.block)["hash"])
    comparison.equal(
        "the store", f"hash of block {cursor.block}", store=cursor.block_hash, chain=found
    )
    ledger = history.ledger(Comparison(), reach)
    for key in sorted(stored.jobs.keys() | ledger.jobs.keys()):
        _compare_job(key, stored, ledger, comparison)
    _compare_payments(stored, history, reach, ledger, comparison)


def _compare_job(key: bytes, stored: _Stored, ledger: Ledger, comparison: Comparison) -> None:
    job, row = ledger.jobs.get(key), stored.jobs.get(key)
    subject = f"job {to_hex(key)}"
    opened = job is not None and job.terms is not None  # a voided one has no terms
    comparison.equal(subject, "opened", store=row is not None, events=opened)
    if job is None or row is None or not opened:
        return
    comparison.equal(subject, "state", store=row.state, events=_STATES[job.state].value)
    for name in ("node_id", "funded", "paid", "refunded", "records", "epochs"):
        comparison.equal(subject, name, store=getattr(row, name), events=getattr(job, name))
    output = row.output_digest or bytes(32)
    comparison.equal(subject, "output digest", store=output, events=job.output_digest)


def _compare_payments(
    stored: _Stored, history: History, reach: int, ledger: Ledger, comparison: Comparison
) -> None:
    paid: dict[bytes, int] = defaultdict(int)
    for event, _ in history.events:
        if event.contract == "vault" and event.name == "Settled" and event.block <= reach:
            paid[bytes(event.args["receipt_digest"])] += event.args["amount"]
    for row in stored.receipts:
        subject = f"receipt {to_hex(row.digest)} by {row.signer}"
        job = ledger.jobs.get(row.job_id)
        covered = False
        if job is not None and job.terms is not None:
            covered = job.terms.earned(row.records, row.epochs, funded=job.funded) <= job.paid
        if row.status == Status.SETTLED and row.reason == Reason.COVERED:
            comparison.equal(subject, "covered by what was paid", store=True, events=covered)
        elif row.status == Status.SETTLED:
            amount = paid.get(row.digest, "nothing")
            comparison.equal(subject, "paid", store=row.amount, events=amount)
        elif row.reason is None:  # a forger's row under a real digest has a reason
            settled = row.digest in paid and covered
            comparison.equal(subject, "settled", store=False, events=settled)
