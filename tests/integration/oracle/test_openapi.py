"""The OpenAPI document holds: what it allows, and what it does not, is answered as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi import CHECKS
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation, BaseSchema
from unit.oracle.bench import (
    DAY,
    PLATFORM,
    TOKEN,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    quote_for,
    registration,
    signed,
    terms,
)
from unit.oracle.ledger import START

from oracle.api import create_app
from oracle.messages import ChallengeRequest, ChangeKind, SignatureRequest
from oracle.service import Service
from settlement.models import PlatformVerdict
from settlement.types import to_hex

ROUTES = [
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/attestations/{digest}",
    "GET /v1/escrows/{job_id}",
    "GET /v1/jobs/{job_id}",
    "GET /v1/nodes",
    "GET /v1/nodes/{node_id}",
    "GET /v1/platforms/{platform}",
    "GET /v1/quotes/{digest}",
    "GET /v1/receipts/{digest}",
    "POST /v1/attestations",
    "POST /v1/attestations/challenges",
    "POST /v1/attestations/tpm",
    "POST /v1/attestations/tpm/activations",
    "POST /v1/attestations/tpm/enrolments",
    "POST /v1/committee/challenges",
    "POST /v1/committee/signatures",
    "POST /v1/committee/tpm",
    "POST /v1/committee/tpm/activations",
    "POST /v1/committee/tpm/enrolments",
    "POST /v1/escrows",
    "POST /v1/quotes",
    "POST /v1/receipts",
    "POST /v1/receipts/batch",
]
ENDLESS = "GET /v1/events"
"""A stream, which has tests of its own: `test_events.py` and `tests/unit/oracle/test_feed.py`."""


VERDICT = PlatformVerdict(
    platform=PLATFORM, node_id=1, module_svn=0, expiry=START + 20 * DAY, epoch=1
)


class Seeded:
    """An oracle with something of each kind in its store, and requests about that."""

    def __init__(self, directory: Path) -> None:
        self.bench = bench = Bench.create(directory)
        bench.open(terms())
        self.paid, self.waiting = signed(terms(), 10), signed(terms(9), 3)
        bench.intake.submit_receipt(self.paid)
        bench.intake.submit_receipt(self.waiting)
        bench.intake.submit_escrow(escrow(terms(1)))
        request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
        self.evidence = evidence(bench.quorum.challenges(request), enclave="new")
        self.attestation = bench.quorum.submit(self.evidence)
        bench.ledger.mine(lambda chain: chain.judge(VERDICT))
        self.quote = quote_for(bench.quotes.platform(PLATFORM).challenge, enclave="quoted")
        self.quoted = bench.quotes.submit(self.quote)
        bench.rounds()
        self.fresh = evidence(bench.quorum.challenges(request), enclave="new")
        self.service = bench.service()
        self.app: FastAPI = create_app(self.service)
        self.schema: BaseSchema = schemathesis.openapi.from_asgi("/openapi.json", self.app)
        self.operations: dict[str, APIOperation] = {
            found.ok().label: found.ok() for found in self.schema.get_all_operations()
        }

    def paths(self, route: str) -> list[dict[str, Any]]:
        """The path parameters of what is there."""
        receipts = [to_hex(digest_of(it.receipt)) for it in (self.paid, self.waiting)]
        return {
            "GET /v1/attestations/{digest}": [{"digest": to_hex(self.attestation.digest)}],
            "GET /v1/escrows/{job_id}": [{"job_id": to_hex(key_of(terms(1)))}],
            "GET /v1/jobs/{job_id}": [{"job_id": to_hex(key_of(terms(i)))} for i in (0, 1)],
            "GET /v1/nodes/{node_id}": [{"node_id": 1}, {"node_id": 2}],
            "GET /v1/platforms/{platform}": [{"platform": to_hex(PLATFORM)}],
            "GET /v1/quotes/{digest}": [{"digest": to_hex(self.quoted.digest)}],
            "GET /v1/receipts/{digest}": [{"digest": digest} for digest in receipts],
        }.get(route, [])

    def bodies(self, route: str) -> list[Any]:
        """Bodies that mean something."""
        batch = [self.paid, self.waiting, signed(terms(), 11, by="forger"), signed(terms(), 12)]
        listed = [it.model_dump(mode="json") for it in batch]
        request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
        asked = SignatureRequest(evidence=self.fresh, expiry=registration().expiry, epoch=1)
        return {
            "POST /v1/attestations": [self.evidence.model_dump(mode="json")],
            "POST /v1/attestations/challenges": [request.model_dump(mode="json")],
            "POST /v1/committee/challenges": [request.model_dump(mode="json")],
            "POST /v1/committee/signatures": [
                asked.model_dump(mode="json"),
                asked.model_copy(update={"expiry": 2**64 - 1}).model_dump(mode="json"),
                asked.model_copy(update={"epoch": 2**64 - 1}).model_dump(mode="json"),
            ],
            "POST /v1/escrows": [escrow(terms(i)).model_dump(mode="json") for i in (0, 1, 2)],
            "POST /v1/quotes": [
                self.quote.model_dump(mode="json"),
                quote_for(bytes(32)).model_dump(mode="json"),
            ],
            "POST /v1/receipts": listed,
            "POST /v1/receipts/batch": [{"receipts": listed}, {"receipts": [None, *listed]}],
        }.get(route, [])

    def cases(self, route: str) -> st.SearchStrategy[Case]:
        """Requests as the document has them, as it does not, and about what is there."""
        operation = self.operations[route]
        chosen = [operation.as_strategy(GenerationMode.POSITIVE)]
        chosen += [operation.as_strategy(path_parameters=path) for path in self.paths(route)]
        chosen += [operation.as_strategy(body=body) for body in self.bodies(route)]
        if self.paths(route) or self.bodies(route):
            chosen.append(operation.as_strategy(GenerationMode.NEGATIVE))
        return st.one_of(chosen)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    seeded = Seeded(tmp_path_factory.mktemp("openapi"))
    yield seeded
    service: Service = seeded.service
    service.commits.close()
    seeded.bench.store.close()


def test_each_route_is_tried(seeded: Seeded) -> None:
    assert sorted(seeded.operations) == sorted([*ROUTES, ENDLESS])
    feed = seeded.service.feed
    assert {change.kind for change in feed.page(feed.start_from("0-0"))} == set(ChangeKind)


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_has_an_answer_that_the_document_does_not_know(
    seeded: Seeded, route: str
) -> None:
    # Not being ready is an answer; and it is one as long as the loops do not run.
    wanted = [check for check in CHECKS if (route, check) != ("GET /readyz", not_a_server_error)]

    @settings(max_examples=max(20, settings.default.max_examples // 4))
    @given(case=seeded.cases(route))
    def ask(case: Case) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        response = case.call(headers=headers)
        case.validate_response(response, checks=wanted)

    ask()


@pytest.mark.parametrize("route", [r for r in ROUTES if "{" in r])
def test_what_is_there_is_answered_and_not_only_refused(seeded: Seeded, route: str) -> None:
    for path in seeded.paths(route)[:1]:
        case = seeded.operations[route].Case(path_parameters=path)
        assert case.call().status_code == 200
