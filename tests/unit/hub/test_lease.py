"""A node gets paid work only, one job at a time, and the same again after a crash."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from unit.hub.conftest import make_hub

from oracle.clients.hub.api import create_app
from oracle.clients.hub.database import open_database
from oracle.clients.hub.keys import HUB
from oracle.clients.hub.service import ASKED_PER_LEASE
from oracle.clients.hub.store import Store
from settlement.hub.client import HubRefused, HubUnavailable
from settlement.hub.messages import ArtifactName, Failure, JobCreated, JobRequest, JobState
from settlement.types import to_hex

MakeRequest = Callable[..., JobRequest]
World = Any


def test_unpaid_job_is_not_leased(world: World, make_request: MakeRequest) -> None:
    world.party("acme").create_job(make_request())
    assert world.party("1").lease(1) is None


def test_job_is_funded_when_the_oracle_says_so(world: World, make_request: MakeRequest) -> None:
    created = world.funded(make_request())
    assert world.party("acme").job(created.job_id).state is JobState.FUNDED
    assert world.party("1").lease(1).job_id == created.job_id
    assert world.party("acme").job(created.job_id).state is JobState.RUNNING


def test_other_node_gets_nothing(world: World, make_request: MakeRequest) -> None:
    world.funded(make_request())
    world.oracle.attest(2)
    assert world.party("2").lease(2) is None


def test_same_job_comes_again_until_it_is_finished(world: World, make_request: MakeRequest) -> None:
    first, second = world.running(make_request()), world.funded(make_request())
    node = world.party("1")
    assert node.lease(1) == node.lease(1)
    assert node.lease(1).job_id == first.job_id
    for name in ArtifactName:
        node.put_artifact(first.job_id, name, b"done")
    assert node.lease(1).job_id == second.job_id


def test_restarted_hub_hands_out_the_running_job_again(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    store = Store(open_database(f"sqlite:///{world.folder}/hub.sqlite"))
    world.service._store.close()
    hub = make_hub(store, world.oracle, world.deployment, world.folder, lambda: world.now[0])
    with TestClient(create_app(hub)) as world.http:
        assert world.party("1").lease(1).job_id == created.job_id


def test_only_one_of_two_funded_jobs_can_start(world: World, make_request: MakeRequest) -> None:
    first, second = world.funded(make_request()), world.funded(make_request())
    store = world.service._store
    for created in (first, second):
        world.party("acme").job(created.job_id)  # asks the oracle: now FUNDED

    def start(created: JobCreated) -> bool:
        return store.start(store.job(created.job_id), HUB, 5, 10)

    assert [start(first), start(second), start(first)] == [True, False, False]
    assert store.job(second.job_id).state is JobState.FUNDED


def test_unpaid_quotes_neither_starve_paid_jobs_nor_slow_the_node(
    world: World, make_request: MakeRequest
) -> None:
    for _ in range(ASKED_PER_LEASE + 4):
        world.party("acme").create_job(make_request())
    world.now[0] += 1
    created = world.funded(make_request())
    world.now[0] += 1
    world.oracle.asked.clear()
    assert world.party("1").lease(1) is None
    assert len(world.oracle.asked) == ASKED_PER_LEASE
    world.now[0] += 1
    assert world.party("1").lease(1).job_id == created.job_id


def test_node_that_lost_its_attestation_gets_no_new_job(
    world: World, make_request: MakeRequest
) -> None:
    created = world.funded(make_request())
    world.oracle.attest(1, valid=False)
    with pytest.raises(HubRefused) as caught:
        world.party("1").lease(1)
    assert (caught.value.code, caught.value.final) == ("NodeNotAttested", False)
    assert world.party("acme").job(created.job_id).state is JobState.FUNDED
    world.oracle.attest(1)
    assert world.party("1").lease(1).job_id == created.job_id


def test_node_whose_tpm_evidence_ended_gets_no_new_job_and_is_told_why(
    world: World, make_request: MakeRequest
) -> None:
    world.funded(make_request())
    world.oracle.attest(1, tpm=False)
    with pytest.raises(HubRefused) as caught:
        world.party("1").lease(1)
    assert (caught.value.code, caught.value.status) == ("NodeNotAttested", 409)
    assert caught.value.data == {"node_id": 1, "reasons": ["tpm_expired"]}


def test_dead_oracle_stops_the_lease_and_loses_nothing(
    world: World, make_request: MakeRequest
) -> None:
    created = world.funded(make_request())
    world.oracle.down = True
    with pytest.raises(HubUnavailable, match="oracle") as caught:
        world.party("1").lease(1)
    assert caught.value.final is False
    answer = world.http.post("/v1/nodes/1/lease", headers=world.headers("1"))
    assert (answer.status_code, answer.json()["code"]) == (503, "OracleUnavailable")
    assert answer.json()["final"] is False
    assert world.service._store.job(created.job_id).state is JobState.QUOTED
    world.oracle.down = False
    assert world.party("1").lease(1).job_id == created.job_id


def test_dead_oracle_refuses_new_jobs_and_views_but_not_deliveries(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    world.oracle.down = True
    calls: tuple[Callable[[], object], ...] = (
        lambda: world.party("acme").create_job(make_request()),
        lambda: world.party("acme").job(created.job_id),
        lambda: world.party("acme").catalogue(),
    )
    for call in calls:
        with pytest.raises(HubUnavailable):
            call()
    assert list(world.service._store.waiting(1, 10)) == []
    for name in ArtifactName:
        world.party("1").put_artifact(created.job_id, name, b"done")
    assert world.party("acme").job(created.job_id).state is JobState.DELIVERED


def test_refusing_oracle_is_a_named_error(world: World, make_request: MakeRequest) -> None:
    world.oracle.refusing = True
    body = make_request().model_dump(mode="json")
    answer = world.http.post("/v1/jobs", json=body, headers=world.headers("acme"))
    assert (answer.status_code, answer.json()["code"]) == (502, "OracleRefused")
    assert answer.json()["oracle_code"] == "OperatorOnly"


def test_unpaid_quote_expires_at_its_deadline(world: World, make_request: MakeRequest) -> None:
    created = world.party("acme").create_job(make_request())
    world.now[0] = created.terms.deadline + 1
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.failure.code) == (JobState.FAILED, "QuoteExpired")


def test_paid_job_that_no_node_took_in_time_fails(world: World, make_request: MakeRequest) -> None:
    created = world.funded(make_request())
    world.now[0] = created.terms.deadline + 1
    assert world.party("1").lease(1) is None
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.failure.code) == (JobState.FAILED, "DeadlinePassed")


def test_a_job_cancelled_before_its_node_started_is_not_handed_out(
    world: World, make_request: MakeRequest
) -> None:
    created = world.funded(make_request())
    world.oracle.cancel(created.job_id)
    assert world.party("1").lease(1) is None
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.failure.code) == (JobState.FAILED, "EscrowCancelled")


def test_a_job_cancelled_under_its_node_stays_its_node_s(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    world.oracle.cancel(created.job_id)
    assert world.party("1").lease(1).job_id == created.job_id
    assert world.party("acme").job(created.job_id).state is JobState.RUNNING


def test_a_job_without_a_node_on_chain_is_not_handed_out(
    world: World, make_request: MakeRequest
) -> None:
    created = world.funded(make_request())
    world.oracle.escrows[to_hex(created.job_id)] |= {"state": "UNASSIGNED", "node_id": None}
    assert world.party("1").lease(1) is None
    assert world.party("acme").job(created.job_id).state is JobState.QUOTED


def test_refund_ends_a_running_job(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    world.oracle.close(created.job_id, completed=False)
    assert world.party("1").lease(1) is None
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.failure.code) == (JobState.FAILED, "EscrowClosed")


def test_paid_completion_before_delivery_lets_the_node_deliver(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    world.oracle.close(created.job_id, completed=True)
    assert world.party("1").lease(1).job_id == created.job_id
    for name in ArtifactName:
        world.party("1").put_artifact(created.job_id, name, b"done")
    assert world.party("acme").job(created.job_id).state is JobState.DELIVERED


def test_escrow_that_a_reorganisation_took_back_is_waited_for(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    escrows = dict(world.oracle.escrows)
    world.oracle.escrows.clear()
    assert world.party("1").lease(1) is None
    assert world.party("acme").job(created.job_id).state is JobState.RUNNING
    world.oracle.escrows.update(escrows)
    assert world.party("1").lease(1).job_id == created.job_id


def test_failed_job_frees_its_node(world: World, make_request: MakeRequest) -> None:
    first, second = world.running(make_request()), world.funded(make_request())
    world.party("1").report_failure(first.job_id, Failure(code="OutOfMemory", detail="8 GiB"))
    assert world.party("1").lease(1).job_id == second.job_id
