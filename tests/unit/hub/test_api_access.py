"""Who may do what. Every route of the app is in `ROUTES`; one that is not fails the first test."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from unit.hub.conftest import build_world

from settlement.deployment import Deployment
from settlement.hub.account import Scope
from settlement.hub.client import HubRefused
from settlement.hub.messages import (
    ArtifactName,
    DatasetProfile,
    Failure,
    JobCreated,
    JobRequest,
    JobState,
    Progress,
)
from settlement.types import to_hex

MakeRequest = Callable[..., JobRequest]
World = Any
JOB, UPLOAD, KEY = "0x" + "00" * 32, "0x" + "00" * 32, "0" * 16
TUS = {"tus-resumable": "1.0.0", "upload-offset": "0", "upload-length": "8"}


@dataclass(frozen=True)
class Rule:
    """Who may call a route, and what keeps parties apart on it.

    `role` is the one that is needed, None for several. `apart` says how: "own" routes speak of one
    thing of one tenant's, and are tried with another's; others say in words why there is nothing to
    keep apart.
    """

    role: str | None
    scope: Scope | None
    apart: str
    key_needed: bool = True


PUBLIC = "public: nothing in it is anybody's"
CAPABILITY = "the id is told to nobody but its owner"
LISTED = "a list of the asker's own, tried in `test_lists_are_the_askers_own`"
OPERATORS = "the operator sees all, on purpose"
ROUTES = {
    "GET /healthz": Rule(None, None, PUBLIC, key_needed=False),
    "GET /readyz": Rule(None, None, PUBLIC, key_needed=False),
    "GET /v1/hub": Rule(None, None, PUBLIC, key_needed=False),
    "POST /v1/session/challenge": Rule(None, None, PUBLIC, key_needed=False),
    "POST /v1/session": Rule(None, None, "by signature", key_needed=False),
    "GET /v1/session": Rule(None, None, "by cookie"),
    "DELETE /v1/session": Rule(None, None, "by cookie"),
    "GET /v1/registrations": Rule(None, None, PUBLIC, key_needed=False),
    "POST /v1/registrations": Rule(None, None, "by proof or session", key_needed=False),
    "GET /v1/registrations/{registration_id}": Rule(None, None, CAPABILITY, key_needed=False),
    "POST /v1/registrations/{registration_id}/answer": Rule(
        None, None, CAPABILITY, key_needed=False
    ),
    "GET /v1/keys": Rule(None, Scope.MANAGE, LISTED),
    "POST /v1/keys": Rule(None, Scope.MANAGE, "makes something of the asker's own"),
    "POST /v1/keys/{key_id}/rotation": Rule(None, Scope.MANAGE, "own"),
    "DELETE /v1/keys/{key_id}": Rule(None, Scope.MANAGE, "own"),
    "GET /v1/audit": Rule(None, Scope.READ, LISTED),
    "GET /v1/operator/registrations": Rule("operator", Scope.OPERATE, OPERATORS),
    "POST /v1/operator/registrations/{registration_id}/decision": Rule(
        "operator", Scope.OPERATE, OPERATORS
    ),
    "GET /v1/operator/nodes": Rule("operator", Scope.OPERATE, OPERATORS),
    "GET /v1/catalogue": Rule(None, Scope.READ, PUBLIC),
    "GET /v1/catalogue/{node_id}": Rule(None, Scope.READ, PUBLIC),
    "POST /v1/quotes": Rule(None, Scope.READ, PUBLIC),
    "GET /v1/policies": Rule(None, None, PUBLIC, key_needed=False),
    "POST /v1/policies/explanation": Rule(None, None, PUBLIC, key_needed=False),
    "OPTIONS /v1/uploads": Rule(None, None, PUBLIC, key_needed=False),
    "POST /v1/uploads": Rule("developer", Scope.SUBMIT, "makes something of the asker's own"),
    "HEAD /v1/uploads/{upload_id}": Rule("developer", Scope.SUBMIT, "own"),
    "GET /v1/uploads/{upload_id}": Rule("developer", Scope.SUBMIT, "own"),
    "PATCH /v1/uploads/{upload_id}": Rule("developer", Scope.SUBMIT, "own"),
    "DELETE /v1/uploads/{upload_id}": Rule("developer", Scope.SUBMIT, "own"),
    "POST /v1/jobs": Rule("developer", Scope.SUBMIT, "makes something of the asker's own"),
    "GET /v1/jobs": Rule(None, Scope.READ, LISTED),
    "GET /v1/jobs/{job_id}": Rule(None, Scope.READ, "own"),
    "GET /v1/jobs/{job_id}/detail": Rule("developer", Scope.READ, "own"),
    "POST /v1/jobs/{job_id}/reroute": Rule("developer", Scope.SUBMIT, "own"),
    "GET /v1/jobs/{job_id}/receipts": Rule("developer", Scope.READ, "own"),
    "GET /v1/jobs/{job_id}/escrow": Rule("developer", Scope.READ, "own"),
    "POST /v1/jobs/{job_id}/escrow": Rule("developer", Scope.SUBMIT, "own"),
    "GET /v1/jobs/{job_id}/settlement": Rule(None, Scope.READ, "own"),
    "GET /v1/jobs/{job_id}/calls": Rule("developer", Scope.READ, "own"),
    "GET /v1/jobs/{job_id}/artifacts/{name}": Rule("developer", Scope.READ, "own"),
    "PUT /v1/jobs/{job_id}/artifacts/{name}": Rule("node", Scope.WORK, "own"),
    "POST /v1/jobs/{job_id}/progress": Rule("node", Scope.WORK, "own"),
    "POST /v1/jobs/{job_id}/failure": Rule("node", Scope.WORK, "own"),
    "PUT /v1/nodes/{node_id}/profile": Rule("node", Scope.WORK, "own"),
    "POST /v1/nodes/{node_id}/lease": Rule("node", Scope.WORK, "own"),
    "POST /v1/nodes/{node_id}/heartbeat": Rule("node", Scope.WORK, "own"),
}
KEYED = [route for route, rule in ROUTES.items() if rule.key_needed]
OWN = [route for route, rule in ROUTES.items() if rule.apart == "own"]
PROGRESS = Progress(records=1, epochs=0, epochs_total=2)


def routes_of(app: Any) -> set[str]:
    """Every route that the app answers, also where the OpenAPI document is silent."""
    found: set[str] = set()
    for route in _flat(app.routes):
        if isinstance(route, APIRoute):
            found |= {f"{method} {route.path}" for method in route.methods}
    return found


def _flat(routes: Any) -> Any:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _flat(inner.routes)
        else:
            yield route


def body_of(route: str, profile: DatasetProfile) -> dict[str, Any]:
    """A request that is right but for whose it is."""
    authorization = {"valid_after": 0, "valid_before": 2, "signature": "0x" + "11" * 65}
    bodies: dict[str, Any] = {
        "POST /v1/jobs/{job_id}/escrow": {"authorization": authorization},
        "POST /v1/jobs/{job_id}/progress": PROGRESS.model_dump(mode="json"),
        "POST /v1/jobs/{job_id}/failure": {"code": "X", "detail": ""},
        "PUT /v1/nodes/{node_id}/profile": profile.model_dump(mode="json"),
        "POST /v1/keys/{key_id}/rotation": {},
        "POST /v1/operator/registrations/{registration_id}/decision": {
            "action": "approve",
            "reason": "known",
        },
    }
    return {"json": bodies[route]} if route in bodies else {}


def ask(world: World, route: str, who: dict[str, str], profile: Any, **ids: str) -> Any:
    method, path = route.split()
    known = {"job_id": JOB, "upload_id": UPLOAD, "key_id": KEY, "node_id": "1", "name": "weights"}
    path = path.format(**{**known, "registration_id": JOB, **ids})
    headers = {**who, **TUS} if "uploads" in path else dict(who)
    body = body_of(route, profile)
    if method == "PATCH":
        headers["content-type"] = "application/offset+octet-stream"
        body = {"content": b"evil"}
    return world.http.request(method, path, headers=headers, **body)


def test_every_route_is_in_this_table(world: World) -> None:
    documentation = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    served = {route for route in routes_of(world.http.app) if route.split()[1] not in documentation}
    # Who sees which page is in `test_console_pages`; what they change goes by the API.
    pages = {route for route in served if f"{route.split()[1]}/".startswith(("//", "/console/"))}
    assert {route.split()[0] for route in pages} == {"GET"}
    assert served - pages == set(ROUTES)


@pytest.mark.parametrize("route", KEYED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nobody-has-this-key-nobody-at-all"},
        {"authorization": "Basic YWNtZTprZXk="},
        {"cookie": "rapha_session=nobody-has-this-session-nobody-at-all"},
    ],
)
def test_without_a_known_key_nothing_is_answered(
    still: World, make_profile: Callable[..., DatasetProfile], route: str, headers: dict[str, str]
) -> None:
    answer = ask(still, route, headers, make_profile(1))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert still.oracle.asked == []
    if answer.request.method != "HEAD":
        assert answer.json()["code"] == "Unauthorized"


@pytest.mark.parametrize("route", [route for route in KEYED if ROUTES[route].role])
def test_other_role_is_refused(
    still: World, make_profile: Callable[..., DatasetProfile], route: str
) -> None:
    needed = ROUTES[route].role
    for name, role in (("acme", "developer"), ("1", "node"), ("boss", "operator")):
        if role == needed:
            continue
        answer = ask(still, route, still.headers(name), make_profile(1))
        assert answer.status_code == 403
        if answer.request.method != "HEAD":
            assert (answer.json()["code"], answer.json()["needed"]) == ("WrongRole", needed)


@pytest.mark.parametrize("route", [route for route in KEYED if ROUTES[route].scope])
def test_key_for_less_is_refused(
    still: World, make_profile: Callable[..., DatasetProfile], route: str
) -> None:
    rule = ROUTES[route]
    name = {"node": "1", "operator": "boss"}.get(rule.role or "", "acme")
    still.narrow(name, {scope for scope in Scope if scope is not rule.scope})
    answer = ask(still, route, still.headers(name), make_profile(1))
    still.narrow(name, set(Scope))
    assert answer.status_code == 403
    if answer.request.method != "HEAD":
        assert (answer.json()["code"], answer.json()["needed"]) == ("ScopeMissing", rule.scope)


@pytest.fixture(scope="module")
def still(
    tmp_path_factory: pytest.TempPathFactory,
    migrated: Path,
    deployment: Deployment,
    make_profile: Callable[..., DatasetProfile],
) -> Iterator[World]:
    """One world for all tests in which everything is refused."""
    folder = tmp_path_factory.mktemp("still")
    shutil.copy(migrated, folder / "hub.sqlite")
    with build_world(folder, deployment, make_profile) as built:
        yield built


@dataclass(frozen=True)
class Belongings:
    """What acme and its node have, by id."""

    ids: dict[str, str]
    created: JobCreated


@pytest.fixture
def belongings(world: World, make_request: MakeRequest) -> Belongings:
    created = world.delivered(make_request())
    headers = {**world.headers("acme"), "tus-resumable": "1.0.0", "upload-length": "8"}
    upload = world.http.post("/v1/uploads", headers=headers).headers["location"]
    issued = {"label": "ci", "scopes": ["read"]}
    key = world.http.post("/v1/keys", headers=world.headers("acme"), json=issued).json()
    ids = {
        "job_id": to_hex(created.job_id),
        "upload_id": upload.rsplit("/")[-1],
        "key_id": key["key"]["key_id"],
        "node_id": "1",
    }
    return Belongings(ids, created)


@pytest.mark.parametrize("route", OWN)
def test_nobody_reaches_what_is_anothers_or_can_tell_that_it_exists(
    world: World,
    make_profile: Callable[..., DatasetProfile],
    belongings: Belongings,
    route: str,
) -> None:
    rule = ROUTES[route]
    strangers = {"node": ["2"], "developer": ["rival"]}.get(rule.role or "", ["rival", "2", "boss"])
    if rule.scope is Scope.MANAGE:
        strangers = ["rival", "boss"]
    for stranger in strangers:
        who = world.headers(stranger)
        of_acme = ask(world, route, who, make_profile(1), **belongings.ids)
        nobodys = ask(world, route, who, make_profile(1))
        assert of_acme.status_code in (403, 404)
        assert "acme" not in of_acme.text
        if "{node_id}" not in route:  # nodes are public; what they may do is not
            told = [str(it.text) for it in (of_acme, nobodys)]
            for name in ("job_id", "upload_id", "key_id"):
                told = [text.replace(belongings.ids[name], "…") for text in told]
            told = [text.replace(JOB, "…").replace(KEY, "…") for text in told]
            assert told[0] == told[1]
            assert of_acme.status_code == nobodys.status_code == 404


@pytest.mark.parametrize("route", OWN)
def test_its_owner_reaches_it(
    world: World,
    make_profile: Callable[..., DatasetProfile],
    belongings: Belongings,
    route: str,
) -> None:
    owner = "1" if ROUTES[route].role == "node" else "acme"
    answer = ask(world, route, world.headers(owner), make_profile(1), **belongings.ids)
    # of a job that is over, some calls come too late; none says that it is not there
    assert answer.status_code not in (401, 403, 404), answer.text


def test_lists_are_the_askers_own(
    world: World, make_request: MakeRequest, belongings: Belongings
) -> None:
    rivals = world.party("rival").create_job(make_request())

    def listed(path: str, name: str) -> Any:
        return world.http.get(path, headers=world.headers(name)).json()

    def jobs(name: str) -> set[str]:
        return {job["job_id"] for job in listed("/v1/jobs", name)["jobs"]}

    acmes = belongings.ids["job_id"]
    assert jobs("acme") == {acmes}
    assert jobs("rival") == {to_hex(rivals.job_id)}
    assert jobs("1") == jobs("boss") == {acmes, to_hex(rivals.job_id)}
    assert jobs("2") == set()
    assert {key["label"] for key in listed("/v1/keys", "acme")} == {"ci", "from the keys file"}
    for stranger in ("rival", "boss"):
        assert {key["label"] for key in listed("/v1/keys", stranger)} == {"from the keys file"}
    trail = listed("/v1/audit", "acme")["entries"]
    assert {entry["tenant"] for entry in trail} == {"acme"}
    assert {entry["action"] for entry in trail} == {
        "job.quote", "job.funded", "job.start", "job.delivered", "upload.begin", "key.issue",
    }  # fmt: skip
    assert {entry["tenant"] for entry in listed("/v1/audit", "rival")["entries"]} == {"rival"}
    assert {entry["tenant"] for entry in listed("/v1/audit", "boss")["entries"]} == {
        "acme", "rival", None,
    }  # fmt: skip
    answer = world.http.get("/v1/audit", headers=world.headers("1"))
    assert (answer.status_code, answer.json()["code"]) == (403, "WrongRole")


def test_anothers_upload_makes_no_job(
    world: World, make_request: MakeRequest, belongings: Belongings
) -> None:
    upload_id = bytes.fromhex(belongings.ids["upload_id"][2:])
    with pytest.raises(HubRefused) as caught:
        world.party("rival").create_job(make_request(bundle=None, upload_id=upload_id))
    assert (caught.value.code, caught.value.status) == ("UploadUnknown", 404)


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
