"""The hub's database engine: SQLite in WAL mode, or PostgreSQL; migrated when it is opened."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, select

MIGRATIONS = Path(__file__).parent / "migrations"
THREADS = 40
"""Requests that are worked on at once: each may need a connection."""
_MIGRATING = 0x7261706861
"""The advisory lock under which one of several instances migrates."""
_READING = "rapha_reading"


class Tables:
    """One engine, and the two kinds of transaction on it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(**{_READING: True})
        # SQLite takes one writer, and makes others try again at random: here they queue instead.
        self._turn: AbstractContextManager[object] = (
            threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that writes nothing, and waits for nobody who does."""
        with self._reading.begin() as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; on SQLite there is one at a time."""
        with self._turn, self._engine.begin() as tx:
            yield tx


def open_database(url: str) -> Engine:
    """An engine on the newest schema.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: when the database cannot be opened or migrated.
    """
    # Parameters are hidden from errors: they are bundles, terms and key hashes.
    engine = create_engine(url, hide_parameters=True, pool_size=THREADS, max_overflow=4)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return engine


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # the driver begins nothing by itself; `_on_begin` does
        cursor = raw.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute("PRAGMA busy_timeout=20000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # Immediate: a read that later turns into a write cannot fail for a stale snapshot.
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
