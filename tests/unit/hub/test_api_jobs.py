"""Developers' calls: quoting, viewing, and what each refusal says on the wire."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from oracle.clients.edge.policy.digest import policy_digest
from settlement import digests, eip712
from settlement.hub.client import HubRefused
from settlement.hub.messages import DatasetProfile, JobRequest, JobState
from settlement.types import to_hex

MakeRequest = Callable[..., JobRequest]
World = Any


def stored_jobs(world: World) -> int:
    return len(list(world.service._store.waiting(1, 100)))


def test_quoted_job_has_the_terms_id_and_route(world: World, make_request: MakeRequest) -> None:
    request = make_request()
    created = world.party("acme").create_job(request)
    assert created.job_id == eip712.job_id(created.terms, world.deployment.vault_domain)
    assert created.route.node_id == created.terms.node_id == 1
    assert created.terms.budget == request.budget
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.progress, view.failure) == (JobState.QUOTED, None, None)


def test_equal_requests_are_distinct_jobs(world: World, make_request: MakeRequest) -> None:
    first = world.party("acme").create_job(make_request())
    second = world.party("acme").create_job(make_request())
    assert first.job_id != second.job_id
    assert first.terms.work == second.terms.work


def test_job_goes_to_the_node_with_less_to_do(
    world: World, make_request: MakeRequest, make_profile: Callable[..., DatasetProfile]
) -> None:
    world.oracle.attest(2)
    world.party("2").put_profile(make_profile(2))
    world.running(make_request())
    assert world.party("acme").create_job(make_request()).terms.node_id == 2


def test_unpaid_quotes_do_not_count_as_load(
    world: World, make_request: MakeRequest, make_profile: Callable[..., DatasetProfile]
) -> None:
    world.oracle.attest(2)
    world.party("2").put_profile(make_profile(2))
    for _ in range(3):
        assert world.party("acme").create_job(make_request()).terms.node_id == 1


@pytest.mark.parametrize(
    ("changes", "code", "status", "final"),
    [
        ({"budget": 5_789_999}, "BudgetTooSmall", 422, True),
        ({"deadline": 1_800_000_059}, "DeadlineTooSoon", 422, True),
        ({"modality": "imaging"}, "NoNodeAvailable", 409, False),
        ({"bundle": b"not a zip"}, "BundleRefused", 422, True),
        ({"result_key": bytes(32)}, "ResultKeyUnusable", 422, True),
    ],
)
def test_wrong_job_is_refused_by_name_and_not_kept(
    world: World,
    make_request: MakeRequest,
    changes: dict[str, Any],
    code: str,
    status: int,
    final: bool,
) -> None:
    with pytest.raises(HubRefused) as caught:
        world.party("acme").create_job(make_request(**changes))
    assert (caught.value.code, caught.value.status, caught.value.final) == (code, status, final)
    assert stored_jobs(world) == 0


def test_refusals_carry_their_data(world: World, make_request: MakeRequest) -> None:
    def data(**changes: Any) -> dict[str, Any]:
        with pytest.raises(HubRefused) as caught:
            world.party("acme").create_job(make_request(**changes))
        return caught.value.data

    assert data(budget=1) == {"needed": 5_790_000, "given": 1}
    assert data(deadline=5) == {"deadline": 5, "earliest": 1_800_000_060}
    assert data(bundle=b"x") == {"reason": "not-a-zip", "path": None}
    assert data(modality="imaging") == {
        "quotes": [
            {
                "node_id": 1,
                "worst_case": 5_790_000,
                "why": ["its modality is tabular, not imaging"],
            }
        ]
    }


@pytest.mark.parametrize("change", [{"valid": False}, {"tpm": False}, {"expiry": 1_800_000_000}])
def test_node_without_valid_attestation_gets_no_job(
    world: World, make_request: MakeRequest, change: dict[str, Any]
) -> None:
    world.oracle.attest(1, **change)
    with pytest.raises(HubRefused, match="its attestation is not valid now") as caught:
        world.party("acme").create_job(make_request())
    assert caught.value.code == "NoNodeAvailable"


def test_problem_document_has_every_member(world: World, make_request: MakeRequest) -> None:
    body = make_request(budget=1).model_dump(mode="json")
    answer = world.http.post("/v1/jobs", json=body, headers=world.headers("acme"))
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "BudgetTooSmall",
        "status": 422,
        "detail": "the job can cost up to 5.79 USDC (5790000 base units), "
        "the budget is 0.000001 USDC (1 base units)",
        "code": "BudgetTooSmall",
        "final": True,
        "needed": 5_790_000,
        "given": 1,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", 0),
        ("budget", 1.5),
        ("budget", "10"),
        ("budget", 2**64),
        ("epochs", 0),
        ("payer", "0x0000000000000000000000000000000000000000"),
        ("result_key", "0x00"),
        ("bundle", "@@@"),
        ("modality", "new\nline"),
        ("surprise", 1),
    ],
)
def test_malformed_request_is_named_without_repeating_it(
    world: World, make_request: MakeRequest, field: str, value: object
) -> None:
    body = {**make_request().model_dump(mode="json"), field: value}
    answer = world.http.post("/v1/jobs", json=body, headers=world.headers("acme"))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "InvalidInput")
    assert [fault["at"] for fault in problem["faults"]] == [f"body.{field}"]
    assert "input" not in problem["faults"][0]


def test_bundle_of_the_terms_is_the_one_sent(world: World, make_request: MakeRequest) -> None:
    request = make_request()
    created = world.running(request)
    leased = world.party("1").lease(1)
    assert leased.bundle == request.bundle
    assert leased.terms.work.policy_digest == policy_digest(leased.policy)
    assert leased.terms.work.result_key_digest == digests.result_key_digest(leased.result_key)
    assert (leased.job_id, leased.epochs) == (created.job_id, 2)


def test_body_above_the_limit_is_refused_declared_or_not(world: World) -> None:
    def chunks() -> Any:
        for _ in range(13):
            yield bytes(2**20)

    for content in (bytes(13 * 2**20), chunks()):
        answer = world.http.post("/v1/jobs", content=content, headers=world.headers("acme"))
        assert (answer.status_code, answer.json()["code"]) == (413, "BodyTooLarge")


def test_largest_bundle_fits_into_a_body(world: World, make_request: MakeRequest) -> None:
    body = make_request().model_dump(mode="json")
    body["bundle"] = base64.b64encode(bytes(8 * 2**20)).decode()
    answer = world.http.post("/v1/jobs", json=body, headers=world.headers("acme"))
    assert answer.json()["code"] == "BundleRefused"


def test_unknown_job_and_unknown_path_are_told_apart(world: World) -> None:
    with pytest.raises(HubRefused) as caught:
        world.party("acme").job(bytes(32))
    assert (caught.value.code, caught.value.status) == ("JobUnknown", 404)
    assert caught.value.data == {"job_id": to_hex(bytes(32))}
    answer = world.http.get("/v1/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")
    answer = world.http.delete("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (405, "MethodNotAllowed")


def test_catalogue_tells_who_is_attested_until_when(
    world: World, make_profile: Callable[..., DatasetProfile]
) -> None:
    world.party("2").put_profile(make_profile(2, modality="imaging"))
    entries = {entry.profile.node_id: entry for entry in world.party("acme").catalogue()}
    assert (entries[1].valid, entries[1].expiry) == (True, 1_801_000_000)
    assert (entries[2].valid, entries[2].expiry) == (False, None)
    assert (entries[1].reasons, entries[2].reasons) == ((), ("enclave_missing",))
    assert entries[2].profile == make_profile(2, modality="imaging")


def test_profile_is_replaced_by_a_later_one(
    world: World, make_profile: Callable[..., DatasetProfile]
) -> None:
    later = make_profile(1, record_count=600)
    assert world.party("1").put_profile(later) == later
    assert [entry.profile for entry in world.party("acme").catalogue()] == [later]


def test_health_and_readiness_tell_the_truth(world: World) -> None:
    world.party("acme").health()
    assert world.http.get("/healthz").json() == {"status": "ok"}
    answer = world.http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    world.oracle.down = True
    answer = world.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"database": True, "oracle": False}}
    assert world.http.get("/healthz").status_code == 200
