"""What only one process may do at a time: named leases, and leaders that hold them.

Two guards, since a lock alone cannot stop a process that does not know yet that it lost it. The
lock finds the next leader at once when one dies: in PostgreSQL a session's advisory lock on a
connection of its own, in SQLite a lock of the operating system on a file beside the database. The
`epoch`, which rises with each holder and is looked at in every writing transaction of a leader,
keeps an earlier one from writing.

A pooler that shares one PostgreSQL session between clients (PgBouncer's transaction mode) breaks
session locks: give the oracle a direct connection.
"""

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import structlog
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from oracle.errors import LeaseLost, LeaseTaken
from oracle.store.database import Store, lock_key
from oracle.store.intake_tables import LeaseRow

_log = structlog.get_logger(__name__)


class _Lock(Protocol):
    """A lock that ends with its process at the latest."""

    def check(self) -> None:
        """Raises LeaseLost when it is not held any more."""

    def release(self) -> None:
        """Let go of it."""


class Lease:
    """One process's hold on a name, from `Leases.acquire`."""

    def __init__(self, name: str, epoch: int, lock: _Lock) -> None:
        self.name = name
        self.epoch = epoch
        self._lock = lock

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            LeaseLost: when it is not; `release` is still due.
        """
        self._lock.check()

    def guard(self, session: Session) -> None:
        """Make sure that nobody has taken over, for as long as this transaction lasts.

        Raises:
            LeaseLost: when somebody has.
        """
        self.check()
        query = select(LeaseRow.epoch).where(LeaseRow.name == self.name)
        epoch = session.scalar(query.with_for_update(read=True))
        if epoch != self.epoch:
            raise LeaseLost(self.name, f"epoch {epoch} has begun, this was {self.epoch}")

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()


class Leases:
    """The leases on one database."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    def acquire(self, name: str) -> Lease:
        """Take a lease, without waiting.

        Raises:
            LeaseTaken: when another process has it, or another part of this one.
            sqlalchemy.exc.SQLAlchemyError: when the database does not answer.
        """
        lock = self._lock(name)
        try:
            with self._store.write() as session:
                row = session.get(LeaseRow, name)
                if row is None:
                    row = LeaseRow(name=name, epoch=0)
                    session.add(row)
                row.epoch, row.since = row.epoch + 1, self._clock()
                row.holder = f"{socket.gethostname()}:{os.getpid()}"
        except BaseException:
            lock.release()
            raise
        _log.info("lease taken", lease=name, epoch=row.epoch)
        return Lease(name, row.epoch, lock)

    def holder(self, name: str) -> str:
        """Who took a lease last."""
        with self._store.read() as session:
            row = session.get(LeaseRow, name)
        return row.holder if row else "another process"

    def _lock(self, name: str) -> _Lock:
        if self._store.is_postgresql:
            return _SessionLock.take(self._store.engine.connect(), name, self.holder)
        database = self._store.engine.url.database
        if not database or database == ":memory:":
            return _Free()
        return _FileLock.take(Path(f"{database}.{name}.lock"), name, self.holder)


class _Free:
    """The lock of a database that no other process can reach."""

    def check(self) -> None:
        """Hold it, always."""

    def release(self) -> None:
        """Nothing to let go."""


class _FileLock:
    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file

    @classmethod
    def take(cls, path: Path, name: str, holder: Callable[[str], str]) -> "_FileLock":
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise LeaseTaken(name, holder(name)) from error
        return cls(name, file)

    def check(self) -> None:
        # The file stays: removing it would let two processes lock two files of the same name.
        if self._file.closed:
            raise LeaseLost(self._name, "it was released")

    def release(self) -> None:
        self._file.close()


class _SessionLock:
    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection
        self._turn = threading.Lock()

    @classmethod
    def take(
        cls, connection: Connection, name: str, holder: Callable[[str], str]
    ) -> "_SessionLock":
        try:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # the pool must neither lend it nor reset it
            query = text("SELECT pg_try_advisory_lock(:key)")
            taken = connection.scalar(query, {"key": lock_key(f"lease {name}")})
        except BaseException:
            connection.close()
            raise
        if not taken:
            connection.close()
            raise LeaseTaken(name, holder(name))
        return cls(name, connection)

    def check(self) -> None:
        held = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND pid = pg_backend_pid() AND objsubid = 1"
            " AND (classid::bigint << 32) | objid::bigint = :key"
        )
        with self._turn:
            if self._connection.closed:
                raise LeaseLost(self._name, "it was released")
            try:
                count = self._connection.scalar(held, {"key": lock_key(f"lease {self._name}")})
            except SQLAlchemyError as error:
                reason = f"the connection that held it is gone ({type(error).__name__})"
                raise LeaseLost(self._name, reason) from error
        if count != 1:
            raise LeaseLost(self._name, "the database no longer knows of it")

    def release(self) -> None:
        with self._turn, self._connection as connection:
            if connection.closed:
                return
            # ending the session frees the lock as well, and a moment later
            with suppress(SQLAlchemyError):
                key = {"key": lock_key(f"lease {self._name}")}
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


class Leader:
    """Does something only while it holds the lease on it, and takes that when it becomes free.

    `led(tick)` is for a loop; what the tick writes goes to `store.fenced(leader.guard)`.
    """

    def __init__(self, leases: Leases, name: str) -> None:
        self.name = name
        self._leases = leases
        self._lease: Lease | None = None

    @property
    def leading(self) -> bool:
        """Whether this process held the lease when it last looked."""
        return self._lease is not None

    def led(self, tick: Callable[[], bool]) -> Callable[[], bool]:
        """`tick`, where this process leads; elsewhere a round in which nothing is to be done."""

        def round_() -> bool:
            return self.lead() and tick()

        return round_

    def lead(self) -> bool:
        """Keep the lease or take it; whether this process has it now.

        Raises:
            LeaseLost: when it had it and has it no more; the next call may take it again.
        """
        if self._lease is None:
            try:
                self._lease = self._leases.acquire(self.name)
            except LeaseTaken:
                return False
            return True
        self._checked(self._lease.check)
        return True

    def guard(self, session: Session) -> None:
        """What a leader's writing transaction begins with.

        Raises:
            LeaseLost: when this process does not lead.
        """
        lease = self._lease
        if lease is None:
            raise LeaseLost(self.name, "it was never held, or given up")
        self._checked(lambda: lease.guard(session))

    def resign(self) -> None:
        """Let the next one lead."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _checked(self, check: Callable[[], None]) -> None:
        try:
            check()
        except LeaseLost:
            self.resign()
            raise
