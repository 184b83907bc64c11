"""Engines, sessions and migrations."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from oracle.store import intake_tables as intake_tables  # its tables belong to the metadata
from oracle.store import tpm as tpm_tables  # noqa: F401 - so do its

BUSY_TIMEOUT = 10_000
"""Milliseconds that a connection waits for another one's write."""

IDLE_TIMEOUT = 60_000
"""Milliseconds after which PostgreSQL ends a transaction whose process does nothing any more."""

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """Sessions on one database: `write` commits when its block ends, unless that raises.

    In PostgreSQL, too, only one `write` runs at a time over all instances, as SQLite has it by
    itself: what its block reads stays so until it commits. `share` is for writes that may run side
    by side, and none of them runs while a `write` does.
    """

    def __init__(self, url: str) -> None:
        """`url` is SQLAlchemy's: `sqlite:///path` or `postgresql+psycopg://...`."""
        self.engine = _engine(url)
        if self.is_postgresql:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        else:
            options = {"sqlite_begin": "BEGIN"}
        self._readers = self.engine.execution_options(**options)
        self._guard: Callable[[Session], None] | None = None

    @property
    def is_postgresql(self) -> bool:
        """Whether several processes may share this database."""
        return self.engine.dialect.name == "postgresql"

    def fenced(self, guard: Callable[[Session], None]) -> "Store":
        """The same database, where each writing transaction begins with `guard`, which may raise.

        It is for what only a leader may write: see `oracle.store.leases`.
        """
        fenced = copy.copy(self)
        fenced._guard = guard
        return fenced

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write, alone; it holds the write lock from its start."""
        with self._writing("pg_advisory_xact_lock") as session:
            yield session

    @contextmanager
    def share(self) -> Iterator[Session]:
        """A transaction that may insert beside others of its kind, and sees the facts stand still.

        In SQLite it is a `write`.
        """
        with self._writing("pg_advisory_xact_lock_shared") as session:
            yield session

    @contextmanager
    def _writing(self, lock: str) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            if self.is_postgresql:
                session.execute(text(f"SELECT {lock}(:key)"), {"key": lock_key("write")})
            if self._guard:
                self._guard(session)
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and writes nothing."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to a revision; instances that start together do it one by one."""
        with self.engine.begin() as connection:
            if self.is_postgresql:
                key = {"key": lock_key("migrate")}
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
            command.upgrade(alembic_config(connection), revision)

    def downgrade(self, revision: str) -> None:
        """Take the schema back to a revision."""
        with self.engine.begin() as connection:
            command.downgrade(alembic_config(connection), revision)

    def revision(self) -> str | None:
        """The schema's present revision, None before the first migration."""
        with self._readers.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def check(self) -> None:
        """Touch the database.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: when it does not answer.
        """
        with self._readers.connect() as connection:
            connection.execute(text("SELECT id FROM cursor"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def lock_key(name: str) -> int:
    """The number by which PostgreSQL's advisory locks know a name of ours: a signed 64-bit one."""
    digest = hashlib.sha256(f"rapha oracle {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    engine = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling starts one only at the first write, too late for a lock.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        for setting in (
            f"lock_timeout = {BUSY_TIMEOUT}",
            f"idle_in_transaction_session_timeout = {IDLE_TIMEOUT}",
            # a peer whose machine is gone must not keep its locks for hours
            "tcp_keepalives_idle = 5",
            "tcp_keepalives_interval = 2",
            "tcp_keepalives_count = 3",
        ):
            cursor.execute(f"SET {setting}")
        # an answer promises durability, whatever the server's default is
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(str(options.get("sqlite_begin", "BEGIN IMMEDIATE")))
