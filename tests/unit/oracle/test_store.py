"""The store: exact numbers, durable settings, and migrations that agree with the tables."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, make_url, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, InternalError
from sqlalchemy.schema import CreateTable
from unit.oracle.bench import DEPLOYMENT, actor

from oracle.facts import Call, CallKind
from oracle.signers.local import LocalKey
from oracle.store.database import MIGRATIONS, Store
from oracle.store.tables import (
    CursorRow,
    EnclaveRow,
    EscrowRow,
    JobRow,
    SlotRow,
    Table,
    TransactionRow,
)
from oracle.transactions import Bid, signed_row
from scripts.postgres import Cluster


@pytest.fixture
def store(migrated: str) -> Iterator[Store]:
    store = Store(migrated)
    yield store
    store.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def head() -> str | None:
    """The newest migration there is."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


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
    key = "'\\x01'" if store.is_postgresql else "x'01'"
    values = f"{key}, '1', '{{}}', 'OPEN', '5', '0', '0', '0', '0'"
    with store.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))
    store.migrate("0002")
    with store.read() as session:
        job = session.get_one(JobRow, b"\1")
        assert (job.funded, job.cancelled_until) == (5, None)


def test_transactions_of_one_key_keep_their_nonces_and_what_they_carry(store: Store) -> None:
    """Before the fifth schema the nonce itself was the slot, and the sender was not stored."""
    signer = LocalKey(actor("relayer"))
    row = signed_row(
        Call(CallKind.SETTLE, DEPLOYMENT.vault, b"data"),
        signer=signer,
        chain_id=1,
        nonce=7,
        attempt=1,
        gas=100,
        bid=Bid(2, 1),
        since=0,
        slot=1,
    )
    with store.write() as session:
        session.add_all([row, SlotRow(slot=1, sender=signer.address, nonce=7), escrow_row(1)])
    store.downgrade("0002")
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT slot FROM escrows")).scalar() == 7
    store.migrate()
    with store.read() as session:
        found = session.scalars(select(TransactionRow)).one()
        slot = session.scalars(select(SlotRow)).one()
        assert (found.sender, found.nonce, found.hash) == (signer.address, 7, row.hash)
        assert (slot.sender, slot.nonce, slot.slot) == (signer.address, 7, found.slot)
        assert session.scalars(select(EscrowRow.slot)).one() == found.slot


def escrow_row(slot: int) -> EscrowRow:
    return EscrowRow(
        job_id=bytes(32),
        terms="{}",
        valid_after=0,
        valid_before=1,
        signature=b"",
        status="SUBMITTED",
        slot=slot,
    )


def test_migrating_twice_changes_nothing(store: Store) -> None:
    revision = store.revision()
    store.migrate()
    assert store.revision() == revision == head()


def test_instances_that_start_together_migrate_one_after_the_other(url: str) -> None:
    stores = [Store(url) for _ in range(4)]
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(Store.migrate, stores))
    assert len({store.revision() for store in stores}) == 1
    for store in stores:
        store.close()


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
    sqlite: Store, pragma: str, value: object
) -> None:
    with sqlite.engine.connect() as connection:
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


def test_postgresql_is_set_to_keep_what_it_says_it_keeps(cluster: Cluster) -> None:
    url = cluster.create_migrated()
    cluster.run(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = 'off'")
    store = Store(url)
    with store.engine.connect() as connection:
        for setting, value in (
            ("synchronous_commit", "on"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "1min"),
        ):
            assert connection.execute(text(f"SHOW {setting}")).scalar() == value
    store.close()


def test_a_reader_sees_one_state(store: Store) -> None:
    with store.read() as reading:
        assert reading.get(EnclaveRow, "0x1") is None
        with store.write() as session:
            session.add(enclave("0x1", 1))
        assert reading.get(EnclaveRow, "0x1") is None
    with store.read() as reading:
        assert reading.get(EnclaveRow, "0x1") is not None


def test_a_reader_can_write_nothing_in_postgresql(cluster: Cluster) -> None:
    store = Store(cluster.create_migrated())
    with store.read() as session:
        session.add(enclave("0x1", 1))
        with pytest.raises(InternalError, match="read-only transaction"):
            session.flush()
    store.close()


@pytest.mark.parametrize("second", ["write", "share"])
def test_whoever_writes_alone_in_postgresql_reads_what_stays_so(
    cluster: Cluster, second: str
) -> None:
    store, order = Store(cluster.create_migrated()), []

    def wait_for_turn() -> None:
        with getattr(store, second)() as session:
            order.append(session.scalars(select(EnclaveRow.enclave_key)).all())

    other = threading.Thread(target=wait_for_turn)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
    with store.write() as session:
        session.add(enclave("0x1", 1))
        session.flush()
        other.start()
        while other.is_alive() and not session.scalar(waiting):
            pass
        assert order == []
    other.join()
    assert order == [["0x1"]]
    store.close()


@pytest.mark.parametrize("first", ["write", "share"])
def test_whoever_writes_in_sqlite_does_so_alone(sqlite: Store, first: str) -> None:
    sqlite.migrate()
    other = sqlite3.connect(str(sqlite.engine.url.database), timeout=0)
    with getattr(sqlite, first)() as session:
        session.execute(text("SELECT id FROM cursor"))  # reading is enough to hold the lock
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


def test_postgresql_lets_shared_writes_run_side_by_side(cluster: Cluster) -> None:
    store = Store(cluster.create_migrated())
    with store.share() as one, store.share() as other:
        one.add(enclave("0x1", 1))
        other.add(enclave("0x2", 1))
        one.flush()
        other.flush()
    with store.read() as session:
        assert len(session.scalars(select(EnclaveRow)).all()) == 2
    store.close()
