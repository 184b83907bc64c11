"""Several relaying processes on one PostgreSQL store: one writer per key, each receipt once."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from anvil import Chain
from integration.oracle.scene import POLICY, Scene
from postgres import cluster as cluster
from sqlalchemy import func, select, text

from oracle.batching import BatchPolicy
from oracle.errors import KeyInUse
from oracle.messages import Status
from oracle.store.tables import SlotRow, Table, TransactionRow
from scripts.postgres import Cluster

SETTLED = (Status.SETTLED, None)
WORTH = 50_000


@pytest.fixture
def url(cluster: Cluster) -> str:
    """A database of the test's own, without tables."""
    return cluster.create()


def process(chain: Chain, url: str, *keys: str, batch: int = 100) -> Scene:
    """One relaying process with these keys."""
    policy = replace(POLICY, batch=BatchPolicy(max_batch=batch))
    return Scene.create(chain, Path(), url=url, keys=keys, policy=policy)


def close(*scenes: Scene) -> None:
    for scene in scenes:
        assert scene.keyring is not None
        scene.keyring.close()
        scene.store.close()


def test_a_second_process_stands_by_and_takes_over_when_the_first_is_gone(
    quick: Chain, url: str
) -> None:
    first, second = process(quick, url, "relayer"), process(quick, url, "relayer")
    (job,) = first.open(1)
    for scene in (first, second):
        assert scene.keyring is not None
        scene.keyring.prepare()
    claim = first.submit(job, 10)
    with pytest.raises(KeyInUse):
        second.tick()
    first.automine(False)
    first.tick()
    later = first.submit(job, 30)
    # the first one's connections end, as when its machine goes
    with second.store.engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND pid IN (SELECT pid FROM pg_locks"
                " WHERE locktype = 'advisory')"
            )
        )
    second.tick()
    with pytest.raises(KeyInUse):
        first.tick()
    second.automine(True)
    second.rounds(2)
    assert [second.status(it) for it in (claim, later)] == [SETTLED] * 2
    assert sum(second.payments(job)) == 30 * WORTH
    assert len(second.payments(job)) <= 2
    close(first, second)


def test_processes_with_keys_of_their_own_share_the_work_and_send_no_receipt_twice(
    quick: Chain, url: str
) -> None:
    names = ("relayer", "second", "third")
    scenes = [process(quick, url, name, batch=2) for name in names]
    jobs = scenes[0].open(*range(1, 13))
    scenes[0].automine(False)
    claims = [scenes[0].submit(job, 10) for job in jobs]
    start = threading.Barrier(len(scenes))
    failures: list[BaseException] = []

    def relay(scene: Scene) -> None:
        try:
            start.wait()
            for _ in range(12):
                scene.tick()
        except BaseException as error:  # noqa: BLE001 - the test's own thread has to know
            failures.append(error)

    threads = [threading.Thread(target=relay, args=(scene,)) for scene in scenes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with scenes[0].store.read() as session:
        calls = session.scalars(select(TransactionRow.data)).all()
        nonces = select(SlotRow.sender, SlotRow.nonce, func.count()).group_by(
            SlotRow.sender, SlotRow.nonce
        )
        assert all(count == 1 for _, _, count in session.execute(nonces))
    for job in jobs:  # a job's salt stands in the calldata of what settles it
        assert sum(job.salt in data for data in calls) == 1
    scenes[0].automine(True)
    scenes[0].rounds(2)
    for scene in scenes[1:]:
        scene.tick()
    assert [scenes[0].status(claim) for claim in claims] == [SETTLED] * len(claims)
    assert [scenes[0].payments(job) for job in jobs] == [[10 * WORTH]] * len(jobs)
    close(*scenes)


def test_a_key_that_another_process_took_meanwhile_writes_no_nonce(quick: Chain, url: str) -> None:
    scene = process(quick, url, "relayer")
    (job,) = scene.open(1)
    claim = scene.submit(job, 10)
    assert scene.keyring is not None
    scene.keyring.prepare()
    with scene.store.engine.begin() as connection:
        connection.execute(text("UPDATE leases SET epoch = epoch + 1"))
    with pytest.raises(KeyInUse):
        scene.tick()
    assert scene.status(claim) == (Status.ACCEPTED, None)
    assert scene.unfinished() == []
    scene.rounds(2)  # it gave up the lock with the lease, and takes both again
    assert scene.status(claim) == SETTLED
    close(scene)


def test_the_migrated_schema_takes_what_the_tables_hold(quick: Chain, url: str) -> None:
    scene = process(quick, url, "relayer")
    with scene.store.engine.connect() as connection:
        found = set(connection.dialect.get_table_names(connection))
    assert set(Table.metadata.tables) <= found
    scene.store.downgrade("0002")
    scene.store.migrate()
    close(scene)
