"""One nonce writer per key: the lease on it, whatever other processes share the store."""

import time

from sqlalchemy.orm import Session

from oracle.errors import KeyInUse, LeaseLost
from oracle.store.database import Store
from oracle.store.leases import Leader, Leases


class KeyLease:
    """The right to write one key's nonces in one store."""

    def __init__(self, store: Store, address: str) -> None:
        self._address = address
        self._leader = Leader(Leases(store, lambda: int(time.time())), f"relayer-{address}")

    def acquire(self) -> None:
        """Take the key, or make sure that it is still taken.

        Raises:
            KeyInUse: another process has it.
        """
        try:
            if self._leader.lead():
                return
        except LeaseLost as error:
            raise KeyInUse(self._address) from error
        raise KeyInUse(self._address)

    def check(self, session: Session) -> None:
        """Make sure, for the rest of this database transaction, that the key is this process's.

        Raises:
            KeyInUse: another process has taken it.
        """
        try:
            self._leader.guard(session)
        except LeaseLost as error:
            raise KeyInUse(self._address) from error

    def release(self) -> None:
        """Let another process take the key."""
        self._leader.resign()
