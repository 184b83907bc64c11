"""What the database holds when many ask at once: on SQLite and on PostgreSQL, with real threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import cluster as cluster
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from oracle.clients.edge.policy.digest import policy_digest
from oracle.clients.hub.database import open_database
from oracle.clients.hub.errors import HubError, UploadMisplaced
from oracle.clients.hub.jobs import Job, Task
from oracle.clients.hub.keys import HUB, KeysFile, Principal
from oracle.clients.hub.store import Store
from oracle.clients.hub.tables import leases, metadata
from oracle.clients.hub.upload_store import Upload
from scripts.postgres import Cluster
from settlement import eip712
from settlement.hub.account import Role
from settlement.hub.messages import DatasetProfile, JobRequest, JobState
from settlement.hub.terms import build_terms
from settlement.types import to_hex

ACME = Principal(Role.DEVELOPER, "acme")
VAULT = eip712.vault_domain(31337, "0x" + "22" * 20)
AT_ONCE = 6


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.sqlite'}"
    found: Cluster = request.getfixturevalue("cluster")
    return found.create()


@pytest.fixture
def stores(url: str) -> Iterator[list[Store]]:
    """As many hubs on one database."""
    opened = [Store(open_database(url)) for _ in range(AT_ONCE)]
    yield opened
    for store in opened:
        store.close()


def at_once(stores: list[Store], act: Callable[[Store, int], Any]) -> list[Any]:
    """What each hub gets, or the refusal, when all act at the same moment."""
    together = Barrier(len(stores))

    def one(number: int) -> Any:
        together.wait()
        try:
            return act(stores[number], number)
        except HubError as error:
            return error

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(one, range(len(stores))))


def job(
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
    number: int,
    *,
    node_id: int = 1,
    state: JobState = JobState.FUNDED,
) -> Job:
    request = make_request()
    terms = build_terms(
        request,
        make_profile(node_id),
        bundle_digest=b"m" * 32,
        policy_digest=policy_digest(request.policy),
        salt=bytes([number]) * 32,
    )
    return Job(
        job_id=eip712.job_id(terms, VAULT),
        tenant="acme",
        terms=terms,
        task=Task(policy=request.policy, epochs=2, result_key=request.result_key),
        bundle_digest=b"m" * 32,
        state=state,
        node_id=node_id,
        created_at=number,
    )


def test_schema_is_the_metadata_on_both_and_goes_back_and_forth(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from oracle.clients.hub.database import MIGRATIONS

    engine = open_database(url)
    store = Store(engine)
    keys = {"developers": {"acme": "a" * 40}, "nodes": {"1": "n" * 40}, "operators": {}}
    records = KeysFile.model_validate(keys).records(bytes(32))
    store.replace_api_keys(records)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    for target in ("0002", "head"):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            step = command.downgrade if target == "0002" else command.upgrade
            step(config, target)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert {(key.digest, key.scopes) for key in store.api_keys()} == {
        (key.digest, key.scopes) for key in records
    }
    store.close()


def test_hubs_that_start_at_once_migrate_once(url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        engines = list(pool.map(open_database, [url] * 3 if "postgresql" in url else [url]))
    for engine in engines:
        engine.dispose()


def test_one_job_is_leased_once(
    stores: list[Store],
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
) -> None:
    funded = job(make_request, make_profile, 1)
    stores[0].add_job(funded, b"bundle", ACME)
    results = at_once(stores, lambda store, _: store.start(funded, HUB, 5, 10))
    assert sorted(results) == [False] * (AT_ONCE - 1) + [True]
    assert stores[0].job(funded.job_id).state is JobState.RUNNING


def test_one_node_gets_one_job(
    stores: list[Store],
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
) -> None:
    funded = [job(make_request, make_profile, number) for number in range(AT_ONCE)]
    for it in funded:
        stores[0].add_job(it, b"bundle", ACME)
    results = at_once(stores, lambda store, number: store.start(funded[number], HUB, 5, 10))
    assert sorted(results) == [False] * (AT_ONCE - 1) + [True]
    assert len(stores[0].jobs_of(state=JobState.RUNNING, limit=9)) == 1


def test_database_itself_refuses_a_second_node_on_a_job_and_a_second_job_on_a_node(
    stores: list[Store],
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
) -> None:
    store = stores[0]
    first, second = (job(make_request, make_profile, number) for number in (1, 2))
    for it in (first, second):
        store.add_job(it, b"bundle", ACME)
    assert store.start(first, HUB, 5, 10)
    for job_id, node_id in ((first.job_id, "2"), (second.job_id, "1")):
        row = {"job_id": to_hex(job_id), "node_id": node_id, "expires_at": 10}
        with pytest.raises(IntegrityError), store.write() as tx:
            tx.execute(insert(leases).values(**row))


def test_one_idempotency_key_is_one_job(
    stores: list[Store],
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
) -> None:
    made = [
        job(make_request, make_profile, number, state=JobState.QUOTED) for number in range(AT_ONCE)
    ]

    def add(store: Store, number: int) -> Job:
        return store.add_job(made[number], b"bundle", ACME, key="once", request_digest="same")

    results = at_once(stores, add)
    assert len({it.job_id for it in results}) == 1
    assert len(stores[0].jobs_of(tenant="acme", limit=9)) == 1


def test_parts_for_one_offset_go_in_once(stores: list[Store]) -> None:
    upload = Upload(bytes(32), "acme", 100, 0, 50)
    stores[0].add_upload(upload, ACME, 1)
    results = at_once(
        stores, lambda store, number: store.append("acme", bytes(32), 0, bytes([number]) * 10, 2)
    )
    assert sum(isinstance(it, UploadMisplaced) for it in results) == AT_ONCE - 1
    assert len(set(stores[0].content(bytes(32)))) == 1
    assert stores[0].upload("acme", bytes(32), 2).offset == 10


def test_one_challenge_is_taken_once(stores: list[Store]) -> None:
    stores[0].add_challenge("nonce", 50, 1)
    results = at_once(stores, lambda store, _: store.take_challenge("nonce", 2))
    assert sorted(results) == [False] * (AT_ONCE - 1) + [True]


def test_node_that_is_heard_of_for_the_first_time_by_all_at_once_is_one_node(
    stores: list[Store],
) -> None:
    at_once(stores, lambda store, _: store.see(7, 5, 10))
    assert stores[0].seen() == {7: 5}
