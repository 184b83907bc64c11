"""The OpenAPI document holds: what it allows, and what it does not, is answered as it says."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi import CHECKS
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation
from unit.hub.conftest import build_world
from unit.hub.test_api_access import OWN, ROUTES

from oracle.clients.hub.routes.jobs import MAX_WAIT
from settlement.deployment import Deployment
from settlement.hub.messages import DatasetProfile, JobRequest
from settlement.types import to_hex

ANSWERED = frozenset(
    {
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{job_id}",
        "GET /v1/jobs/{job_id}/detail",
        "GET /v1/jobs/{job_id}/escrow",
        "POST /v1/jobs/{job_id}/escrow",
        "GET /v1/jobs/{job_id}/settlement",
        "GET /v1/jobs/{job_id}/calls",
        "POST /v1/quotes",
        "POST /v1/policies/explanation",
        "PUT /v1/nodes/{node_id}/profile",
        "POST /v1/nodes/{node_id}/lease",
        "POST /v1/session/challenge",
    }
)
"""Routes of which a right request, about what is there, must get what it asks for."""
AUTHORIZATION = {"valid_after": 0, "valid_before": 2, "signature": "0x" + "11" * 65}
World = Any

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


class Seeded:
    """A hub with something of each kind, and requests about that by who may make them."""

    def __init__(self, world: World, request: JobRequest, profile: DatasetProfile) -> None:
        self.world = world
        world.service.close = lambda: None  # each case starts the app, and ends it
        running = world.running(request)
        quoted = world.party("acme").create_job(request)
        headers = {**world.headers("acme"), "tus-resumable": "1.0.0", "upload-length": "8"}
        upload = world.http.post("/v1/uploads", headers=headers).headers["location"]
        body = {"label": "ci", "scopes": ["read"]}
        key = world.http.post("/v1/keys", json=body, headers=world.headers("acme")).json()
        jobs = [{"job_id": to_hex(it.job_id), "name": "weights"} for it in (running, quoted)]
        self.ids = [
            {
                **job,
                "upload_id": upload.rsplit("/")[-1],
                "key_id": key["key"]["key_id"],
                "node_id": 1,
                "registration_id": "0x" + "00" * 32,
            }
            for job in jobs
        ]
        policy = request.policy.model_dump(mode="json")
        self.bodies = {
            "POST /v1/jobs": [request.model_dump(mode="json")],
            "POST /v1/policies/explanation": [policy],
            "POST /v1/quotes": [{"modality": "tabular", "epochs": 2, "policy": policy}],
            "PUT /v1/nodes/{node_id}/profile": [profile.model_dump(mode="json")],
            "POST /v1/jobs/{job_id}/progress": [{"records": 1, "epochs": 1, "epochs_total": 2}],
            "POST /v1/session/challenge": [{"address": request.payer}],
            "POST /v1/jobs/{job_id}/escrow": [{"authorization": AUTHORIZATION}],
        }
        schema = schemathesis.openapi.from_asgi("/openapi.json", world.http.app)
        self.operations: dict[str, APIOperation] = {
            found.ok().label: found.ok() for found in schema.get_all_operations()
        }

    def headers(self, route: str) -> dict[str, str]:
        """Of somebody who may make the request."""
        rule = ROUTES[route]
        role = rule.role or ("operator" if rule.scope is None else "developer")
        return self.world.headers({"node": "1", "operator": "boss"}.get(role, "acme"))

    def known(self, route: str) -> list[Case]:
        """Requests about what is there, with a body that is right."""
        operation = self.operations[route]
        bodies = [{"body": body} for body in self.bodies.get(route, [])] or [{}]
        return [
            operation.Case(path_parameters=ids, **body)
            for ids in (self._of(route) if route in OWN else [{}])
            for body in bodies
            if ids or "{" not in route
        ]

    def cases(self, route: str) -> st.SearchStrategy[Case]:
        """Requests as the document has them, as it does not, and such about what is there."""
        operation = self.operations[route]
        chosen = [
            operation.as_strategy(GenerationMode.POSITIVE),
            operation.as_strategy(GenerationMode.NEGATIVE),
        ]
        if route in OWN:
            chosen += [operation.as_strategy(path_parameters=ids) for ids in self._of(route)]
        return st.one_of(chosen)

    def _of(self, route: str) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in ids.items() if f"{{{name}}}" in route}
            for ids in self.ids
        ]


@pytest.fixture(scope="module")
def seeded(
    tmp_path_factory: pytest.TempPathFactory,
    migrated: Path,
    deployment: Deployment,
    make_profile: Callable[..., DatasetProfile],
    make_request: Callable[..., JobRequest],
) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copy(migrated, folder / "hub.sqlite")
    with build_world(folder, deployment, make_profile) as world:
        yield Seeded(world, make_request(), make_profile(1))


def test_each_route_is_in_the_document(seeded: Seeded) -> None:
    assert set(seeded.operations) == set(ROUTES)


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_no_request_has_an_answer_that_the_document_does_not_know(
    seeded: Seeded, route: str
) -> None:
    def check(case: Case) -> int:
        # whoever may wait is answered as one that may not, only later
        if isinstance(wait := (case.query or {}).get("wait"), float) and wait <= MAX_WAIT:
            case.query["wait"] = min(wait, 0.1)
        response = case.call(headers=seeded.headers(route), timeout=60)
        case.validate_response(response, checks=CHECKS)
        return response.status_code

    statuses = [check(case) for case in seeded.known(route)]
    if route in ANSWERED:
        assert min(statuses) < 300, "nothing is asked about what is there"

    @settings(max_examples=max(3, settings.default.max_examples // 25))
    @given(case=seeded.cases(route))
    def ask(case: Case) -> None:
        check(case)

    ask()
