"""Leases: one holder at a time, the next one at once, and nothing written by an earlier one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select, text

from oracle.errors import LeaseLost, LeaseTaken
from oracle.store.database import Store, lock_key
from oracle.store.intake_tables import LeaseRow
from oracle.store.leases import Leader, Leases
from oracle.store.tables import MeasurementRow
from scripts.chain import ROOT
from scripts.postgres import Cluster

NAME = "watcher"


@pytest.fixture
def store(migrated: str) -> Iterator[Store]:
    store = Store(migrated)
    yield store
    store.close()


@pytest.fixture
def leases(store: Store) -> Leases:
    return Leases(store, count(100).__next__)


@pytest.fixture
def postgresql(cluster: Cluster) -> Iterator[Store]:
    store = Store(cluster.create_migrated())
    yield store
    store.close()


HOLD = """
import sys
from oracle.store.database import Store
from oracle.store.leases import Leases
lease = Leases(Store(sys.argv[1]), lambda: 1).acquire(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(migrated: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes the lease and keeps it until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, migrated, NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("held" in line and "lease" not in line for line in lines)
        yield process
        process.kill()


def test_epochs_count_the_holders(store: Store, leases: Leases) -> None:
    for epoch in (1, 2):
        lease = leases.acquire(NAME)
        lease.check()
        with store.read() as session:
            row = session.get_one(LeaseRow, NAME)
        assert (lease.epoch, row.epoch, row.since) == (epoch, epoch, 99 + epoch)
        assert row.holder.endswith(f":{os.getpid()}")
        lease.release()


def test_a_second_one_is_refused_and_told_who_has_it(leases: Leases) -> None:
    lease = leases.acquire(NAME)
    with pytest.raises(LeaseTaken, match=f":{os.getpid()} holds 'watcher'") as refusal:
        leases.acquire(NAME)
    assert not refusal.value.final
    leases.acquire("relayer").release()
    lease.release()
    leases.acquire(NAME).release()


def test_another_process_is_in_the_way_until_it_dies(
    leases: Leases, other_process: subprocess.Popen[str]
) -> None:
    with pytest.raises(LeaseTaken) as refusal:
        leases.acquire(NAME)
    assert refusal.value.holder.endswith(f":{other_process.pid}")
    other_process.kill()
    leader = Leader(leases, NAME)
    while not leader.lead():
        pass
    assert leader.leading
    leader.resign()


def test_what_was_released_is_lost(store: Store, leases: Leases) -> None:
    lease = leases.acquire(NAME)
    lease.release()
    with pytest.raises(LeaseLost, match="it was released"):
        lease.check()
    with pytest.raises(LeaseLost, match="it was released"), store.write() as session:
        lease.guard(session)


def test_a_lost_connection_is_lost_leadership(postgresql: Store) -> None:
    store, leases = postgresql, Leases(postgresql, lambda: 1)
    leader = Leader(leases, NAME)
    assert leader.lead()
    fenced = store.fenced(leader.guard)
    with fenced.write() as session:
        session.add(MeasurementRow(measurement=b"1", allowed=True))
    cut_off(store)
    with pytest.raises(LeaseLost, match="the connection that held it is gone"), fenced.write():
        raise AssertionError("the block must not begin")
    assert not leader.leading
    with pytest.raises(LeaseLost, match="never held, or given up"), fenced.write():
        raise AssertionError("the block must not begin")
    assert leader.lead()
    with fenced.write() as session:
        session.add(MeasurementRow(measurement=b"2", allowed=True))
    leader.resign()


def test_a_loop_that_lost_its_lease_says_so_once_and_leads_again(postgresql: Store) -> None:
    store, leader, ticks = postgresql, Leader(Leases(postgresql, lambda: 1), NAME), count()
    tick = leader.led(lambda: next(ticks) >= 0)
    assert tick()
    cut_off(store)
    with pytest.raises(LeaseLost):
        tick()
    assert tick()
    assert next(ticks) == 2
    leader.resign()


def test_only_the_leader_ticks(leases: Leases) -> None:
    one, two = Leader(leases, NAME), Leader(leases, NAME)
    assert one.led(lambda: True)()
    assert not two.led(lambda: pytest.fail("it does not lead"))()
    assert (one.leading, two.leading) == (True, False)
    one.resign()
    assert two.led(lambda: True)()
    two.resign()


def test_an_earlier_holder_that_does_not_know_yet_writes_nothing(
    store: Store, leases: Leases
) -> None:
    lease = leases.acquire(NAME)
    fenced = store.fenced(lease.guard)
    with store.write() as session:  # as the next holder does, wherever it is
        session.get_one(LeaseRow, NAME).epoch += 1
    with (
        pytest.raises(LeaseLost, match="epoch 2 has begun, this was 1"),
        fenced.write() as session,
    ):
        session.add(MeasurementRow(measurement=b"1", allowed=True))
    with store.read() as session:
        assert session.scalars(select(MeasurementRow)).all() == []
    lease.release()


def test_a_database_in_memory_is_its_process_alone() -> None:
    store = Store("sqlite://")
    store.migrate()
    Leases(store, lambda: 1).acquire(NAME).release()
    store.close()


def test_sqlites_lock_stands_beside_the_database(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'oracle.db'}")
    store.migrate()
    Leases(store, lambda: 1).acquire(NAME).release()
    assert (tmp_path / f"oracle.db.{NAME}.lock").exists()
    store.close()


def cut_off(store: Store) -> None:
    """End the session that holds the lease, as a broken network does."""
    holding = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND (classid::bigint << 32) | objid::bigint = :key"
    )
    with store.engine.connect() as connection:
        ended = connection.scalars(text(holding), {"key": lock_key(f"lease {NAME}")}).all()
    assert ended == [True]
