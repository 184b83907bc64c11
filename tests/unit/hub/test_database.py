"""Migrations lead to exactly the metadata, and the database holds what code may race for."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.database import open_database
from oracle.clients.hub.tables import metadata


def test_migrated_schema_is_the_metadata(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert names == set(metadata.tables)
    engine.dispose()


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    first = open_database(url)
    with first.begin() as connection:
        connection.execute(text("INSERT INTO profiles VALUES ('1', '{}', 5)"))
    first.dispose()
    second = open_database(url)
    with second.begin() as connection:
        assert connection.execute(text("SELECT node_id FROM profiles")).scalars().all() == ["1"]
    second.dispose()


def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
    with engine.begin() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    with (
        pytest.raises(IntegrityError, match="FOREIGN KEY"),
        engine.begin() as connection,
    ):
        connection.execute(text("INSERT INTO artifacts VALUES ('0x00', 'weights', 'aa', 1)"))
    engine.dispose()
