"""Engines, sessions and migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

import oracle.store.tpm  # noqa: F401 - its tables are part of the schema

BUSY_TIMEOUT = 10_000
"""Milliseconds that a SQLite connection waits for another one's write."""

_MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """Sessions on one database: `write` commits when its block ends, unless that raises."""

    def __init__(self, url: str) -> None:
        """`url` is SQLAlchemy's: `sqlite:///path` or `postgresql+driver://...`."""
        self.engine = _engine(url)
        self._readers = self.engine.execution_options(sqlite_begin="BEGIN")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; in SQLite it holds the write lock from its start."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and writes nothing."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to a revision."""
        with self.engine.begin() as connection:
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
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
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


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(str(options.get("sqlite_begin", "BEGIN IMMEDIATE")))
