"""When a node dies: its job is never another's, and its payer comes to another node in words."""

from collections.abc import Callable
from typing import Any

import pytest
from unit.hub.conftest import POLICY, START

from settlement.hub.messages import DatasetProfile, JobCreated, JobRequest, JobState
from settlement.types import to_hex

World = Any
MakeRequest = Callable[..., JobRequest]
SILENT = POLICY.patience + 1


@pytest.fixture
def dying(world: World, make_profile: Callable[..., DatasetProfile]) -> Callable[[], None]:
    """Node 1 dies; node 2, which came later and charges more, lives."""

    def die() -> None:
        world.now[0] += SILENT
        world.oracle.attest(2)
        world.party("2").put_profile(make_profile(2, price_per_record=11_000))

    return die


def reroute(world: World, created: JobCreated, **changes: Any) -> Any:
    path = f"/v1/jobs/{to_hex(created.job_id)}/reroute"
    return world.http.post(path, headers=world.headers("acme"), json=changes)


def detail(world: World, job_id: str) -> Any:
    return world.http.get(f"/v1/jobs/{job_id}/detail", headers=world.headers("acme")).json()


@pytest.mark.parametrize("started", [False, True])
def test_paid_job_of_a_dead_node_is_cancelled_and_asked_for_again_at_another(
    world: World, make_request: MakeRequest, dying: Callable[[], None], started: bool
) -> None:
    request = make_request(node_id=1)
    created = world.running(request) if started else world.funded(request)
    first = to_hex(created.job_id)
    dying()
    stalled = detail(world, first)["stalled"]
    assert f"node 1 was not heard of for {SILENT} seconds" in stalled
    assert "the payer can cancel" in stalled.lower()

    held = reroute(world, created)
    assert (held.status_code, held.json()["code"]) == (409, "JobStillHeld")
    assert world.party("2").lease(2) is None  # never two nodes on one job

    world.oracle.cancel(created.job_id)
    again = reroute(world, created)
    assert again.status_code == 201
    answer = JobCreated.model_validate_json(again.content)
    assert (answer.terms.node_id, answer.terms.price_per_record) == (2, 11_000)
    assert answer.terms.work.model_digest == created.terms.work.model_digest
    assert (answer.terms.payer, answer.terms.budget) == (request.payer, request.budget)
    assert answer.terms.salt != created.terms.salt
    assert answer.route.why[0].startswith("reassigned because ")
    assert "node 1" in answer.route.why[0]
    assert "the job is taken away from it" in answer.route.quotes[0].why
    assert reroute(world, created).json()["job_id"] == to_hex(answer.job_id)
    assert detail(world, first)["replaced_by"] == to_hex(answer.job_id)
    assert detail(world, to_hex(answer.job_id))["replaces"] == first

    world.oracle.escrow(answer.job_id, answer.terms)
    assert world.party("2").lease(2).job_id == answer.job_id
    # the dead come back, to what may still be paid and to nothing else
    back = world.party("1").lease(1)
    assert (back.job_id if back else None) == (created.job_id if started else None)


def test_unpaid_job_of_a_dead_node_is_not_paid_for(
    world: World, make_request: MakeRequest, dying: Callable[[], None]
) -> None:
    created = world.party("acme").create_job(make_request())
    job_id = to_hex(created.job_id)
    dying()
    authorization = {"valid_after": 0, "valid_before": 2, "signature": "0x" + "11" * 65}
    refused = world.http.post(
        f"/v1/jobs/{job_id}/escrow",
        headers=world.headers("acme"),
        json={"authorization": authorization},
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "NodeAbsent")
    assert "reroute" in refused.json()["detail"]
    assert world.oracle.handed == []
    assert "do not pay" in detail(world, job_id)["stalled"]
    again = reroute(world, created, deadline=START + 9_000, budget=12_000_000).json()
    assert again["route"]["why"][0] == (
        f"reassigned because node 1 was not heard of for {SILENT} seconds"
    )
    assert (again["terms"]["deadline"], again["terms"]["budget"]) == (START + 9_000, 12_000_000)


def test_delivered_job_is_not_asked_for_again(world: World, make_request: MakeRequest) -> None:
    refused = reroute(world, world.delivered(make_request()))
    assert (refused.status_code, refused.json()["code"]) == (409, "JobNotRepeatable")


def test_without_another_node_it_says_why(world: World, make_request: MakeRequest) -> None:
    created = world.party("acme").create_job(make_request())
    refused = reroute(world, created)
    assert (refused.status_code, refused.json()["code"]) == (409, "NoNodeAvailable")
    assert world.party("acme").job(created.job_id).state is JobState.QUOTED
