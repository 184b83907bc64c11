"""Who may do what: keys, roles, nodes and tenants."""

from collections.abc import Callable
from typing import Any

import pytest

from oracle.clients.hub.client import HubRefused
from oracle.clients.hub.messages import (
    ArtifactName,
    DatasetProfile,
    Failure,
    JobRequest,
    JobState,
    Progress,
)
from settlement.types import to_hex

MakeRequest = Callable[..., JobRequest]
World = Any
JOB = "0x" + "00" * 32
ROUTES = [
    ("PUT", "/v1/nodes/1/profile", "node"),
    ("GET", "/v1/catalogue", None),
    ("POST", "/v1/nodes/1/lease", "node"),
    ("POST", "/v1/jobs", "developer"),
    ("GET", f"/v1/jobs/{JOB}", None),
    ("POST", f"/v1/jobs/{JOB}/progress", "node"),
    ("POST", f"/v1/jobs/{JOB}/failure", "node"),
    ("PUT", f"/v1/jobs/{JOB}/artifacts/weights", "node"),
    ("GET", f"/v1/jobs/{JOB}/artifacts/weights", "developer"),
]
PROGRESS = Progress(records=1, epochs=0, epochs_total=2)


def test_every_route_is_in_this_table(world: World) -> None:
    shaped = {
        (method.upper(), path)
        for path, methods in world.http.app.openapi()["paths"].items()
        for method in methods
    }
    known = {
        (method, path.replace(JOB, "{job_id}").replace("/1/", "/{node_id}/"))
        for method, path, _ in ROUTES
    }
    known = {
        (method, path.replace("artifacts/weights", "artifacts/{name}")) for method, path in known
    }
    # What needs no key: a proof of identity speaks for itself, and a registration's id is known
    # to who registered.
    open_to_all = {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/registrations"),
        ("POST", "/v1/registrations"),
        ("GET", "/v1/registrations/{registration_id}"),
    }
    assert shaped == known | open_to_all


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nobody-has-this-key-nobody-at-all"},
        {"authorization": "Basic YWNtZTprZXk="},
        {"authorization": "Bearer "},
    ],
)
def test_without_a_known_key_nothing_is_answered(
    world: World, method: str, path: str, role: str | None, headers: dict[str, str]
) -> None:
    answer = world.http.request(method, path, headers=headers, json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert world.oracle.asked == []


@pytest.mark.parametrize(("method", "path", "role"), [r for r in ROUTES if r[2]])
def test_other_role_is_refused(world: World, method: str, path: str, role: str) -> None:
    headers = world.headers("acme" if role == "node" else "1")
    answer = world.http.request(method, path, headers=headers, json={})
    assert (answer.status_code, answer.json()["code"]) == (403, "WrongRole")
    assert answer.json()["needed"] == role


def test_node_speaks_for_itself_only(
    world: World, make_profile: Callable[..., DatasetProfile]
) -> None:
    with pytest.raises(HubRefused) as caught:
        world.party("2").put_profile(make_profile(1))
    assert (caught.value.code, caught.value.status) == ("NotYourNode", 403)
    with pytest.raises(HubRefused) as caught:
        world.party("2").lease(1)
    assert (caught.value.code, caught.value.data) == ("NotYourNode", {"node_id": 1})
    body = make_profile(1).model_dump(mode="json")
    answer = world.http.put("/v1/nodes/2/profile", json=body, headers=world.headers("2"))
    assert answer.json()["code"] == "NotYourNode"


def test_other_developer_cannot_tell_the_job_exists(
    world: World, make_request: MakeRequest
) -> None:
    created = world.delivered(make_request())
    unknown = bytes(32)

    def refusal(job_id: bytes, path: str) -> dict[str, Any]:
        url = f"/v1/jobs/{to_hex(job_id)}{path}"
        problem = world.http.get(url, headers=world.headers("rival")).json()
        return {key: str(value).replace(to_hex(job_id), "") for key, value in problem.items()}

    for path in ("", "/artifacts/weights", "/artifacts/receipts"):
        assert refusal(created.job_id, path) == refusal(unknown, path)
        assert refusal(created.job_id, path)["code"] == "JobUnknown"


def test_other_node_cannot_touch_the_job(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    stranger = world.party("2")
    calls: tuple[Callable[[], object], ...] = (
        lambda: stranger.job(created.job_id),
        lambda: stranger.report_progress(created.job_id, PROGRESS),
        lambda: stranger.report_failure(created.job_id, Failure(code="X", detail="")),
        lambda: stranger.put_artifact(created.job_id, ArtifactName.WEIGHTS, b"evil"),
    )
    for call in calls:
        with pytest.raises(HubRefused) as caught:
            call()
        assert (caught.value.code, caught.value.status) == ("JobUnknown", 404)
    view = world.party("acme").job(created.job_id)
    assert (view.state, view.progress) == (JobState.RUNNING, None)


def test_developer_and_its_node_see_the_same_view(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    assert world.party("acme").job(created.job_id) == world.party("1").job(created.job_id)
