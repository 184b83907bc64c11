"""One nonce writer per key: a lock that ends with its process, and a mark that fences it off.

The lock tells at once whether another process relays with the key, and whether it died. Should it
be lost unnoticed all the same (a cut connection), the mark decides: each write of a nonce makes
sure, in its own database transaction, that the key still bears this process's mark.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from eth_utils import keccak
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from oracle.errors import KeyInUse
from oracle.store.database import Store
from oracle.store.tables import RelayerRow


class _Lock(Protocol):
    def hold(self) -> bool:
        """Take the lock, or make sure that it is still held. Returns whether it is."""

    def release(self) -> None:
        """Give it back."""


class KeyLease:
    """The right to write one key's nonces in one store."""

    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._address = address
        self._mark = secrets.token_hex(16)
        self._lock = _lock_for(store, address)
        self._marked = False

    def acquire(self) -> None:
        """Take the key, or make sure that it is still taken.

        Raises:
            KeyInUse: another process has it.
        """
        if not self._lock.hold():
            self._marked = False
            raise KeyInUse(self._address)
        if not self._marked:
            with self._store.write() as session:
                session.merge(RelayerRow(address=self._address, holder=self._mark))
            self._marked = True

    def check(self, session: Session) -> None:
        """Make sure, for the rest of this database transaction, that the key is this process's.

        Raises:
            KeyInUse: another process has taken it.
        """
        query = select(RelayerRow.holder).where(RelayerRow.address == self._address)
        if session.scalar(query.with_for_update()) != self._mark:
            self._marked = False
            raise KeyInUse(self._address)

    def release(self) -> None:
        """Let another process take the key."""
        self._lock.release()
        self._marked = False


class _FileLock:
    """SQLite: a locked file beside the database; the kernel lets go of it with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def hold(self) -> bool:
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _AdvisoryLock:
    """PostgreSQL: a session's advisory lock; the server lets go of it with the connection."""

    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._key = int.from_bytes(keccak(text=f"rapha relayer {address}")[:8], "big", signed=True)
        self._connection: Connection | None = None
        self._backend = 0

    def hold(self) -> bool:
        if self._connection is not None and self._is_alive(self._connection):
            return True
        self.release()
        engine = self._store.engine.execution_options(isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}):
            connection.close()
            return False
        self._connection = connection
        self._backend = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
        return True

    def _is_alive(self, connection: Connection) -> bool:
        try:  # another backend would be a new session, without the lock
            backend = connection.scalar(text("SELECT pg_backend_pid()"))
        except SQLAlchemyError:
            return False
        return bool(backend == self._backend)

    def release(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # a dead connection holds no lock
                self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _lock_for(store: Store, address: str) -> _Lock:
    if store.engine.dialect.name == "sqlite":
        return _FileLock(Path(f"{store.engine.url.database}.{address}.lock"))
    return _AdvisoryLock(store, address)
