"""The store: exact numbers, durable settings, and migrations that agree with the tables."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from oracle.store.database import Store
from oracle.store.tables import CursorRow, EnclaveRow, JobRow, Table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    return store


def enclave(key: str, expiry: int) -> EnclaveRow:
    return EnclaveRow(
        enclave_key=key,
        node_id=1,
        measurement=bytes(32),
        attestation_digest=bytes(32),
        encryption_key_digest=bytes(32),
        expiry=expiry,
        revoked=False,
        block=1,
    )


def test_the_migrated_schema_is_that_of_the_tables(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_down_to_nothing_and_up_again(store: Store) -> None:
    store.downgrade("base")
    assert inspect(store.engine).get_table_names() == ["alembic_version"]
    assert store.revision() is None
    store.migrate()
    assert "receipts" in inspect(store.engine).get_table_names()


def test_a_job_of_the_first_schema_is_not_cancelled_after_the_migration(store: Store) -> None:
    store.downgrade("0001")
    columns = "job_id, node_id, terms, state, funded, paid, refunded, records, epochs"
    values = "x'01', '1', '{}', 'OPEN', '5', '0', '0', '0', '0'"
    with store.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))
    store.migrate()
    with store.read() as session:
        job = session.get_one(JobRow, b"\1")
        assert (job.funded, job.cancelled_until) == (5, None)


def test_migrating_twice_changes_nothing(store: Store) -> None:
    revision = store.revision()
    store.migrate()
    assert store.revision() == revision == "0003_tpm"


def test_every_table_can_be_made_in_postgresql() -> None:
    for table in Table.metadata.sorted_tables:
        statement = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "VARCHAR(20)" not in statement
    enclaves = str(
        CreateTable(Table.metadata.tables["enclaves"]).compile(dialect=postgresql.dialect())
    )
    assert "expiry NUMERIC(20, 0)" in enclaves


@pytest.mark.parametrize("value", [0, 1, 2**53 + 1, 2**63, 2**64 - 1])
def test_a_uint64_comes_back_exactly(store: Store, value: int) -> None:
    with store.write() as session:
        session.add(enclave("0x1", value))
    with store.read() as session:
        assert session.get_one(EnclaveRow, "0x1").expiry == value


def test_uint64s_sort_as_numbers(store: Store) -> None:
    values = [2**64 - 1, 9, 10, 0]
    with store.write() as session:
        session.add_all(enclave(f"0x{value}", value) for value in values)
    with store.read() as session:
        ordered = session.scalars(select(EnclaveRow.expiry).order_by(EnclaveRow.expiry)).all()
    assert ordered == sorted(values)


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)],
)
def test_sqlite_is_set_to_keep_what_it_says_it_keeps(
    store: Store, pragma: str, value: object
) -> None:
    with store.engine.connect() as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_a_write_that_raises_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.write() as session:
            session.add(enclave("0x1", 1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.read() as session:
        assert session.get(EnclaveRow, "0x1") is None


def test_there_is_one_cursor(store: Store) -> None:
    row = CursorRow(id=2, chain_id=1, vault="0x", block=1, block_hash=bytes(32), block_time=1)
    with pytest.raises(IntegrityError), store.write() as session:
        session.add(row)
