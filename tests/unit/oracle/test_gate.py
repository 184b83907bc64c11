"""The operator's switch: nothing is taken in, all that was is worked on and can be asked for."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from unit.oracle.bench import Bench, actor, digest_of, escrow, key_of, receipt, signed, terms

from oracle.api import create_app
from oracle.client import OracleClient, OracleUnavailable
from oracle.gate import RETRY_AFTER, Gate, Pause
from oracle.messages import ChallengeRequest, Status
from oracle.store.database import Store
from settlement.types import to_hex


@pytest.fixture
def http(bench: Bench) -> Iterator[TestClient]:
    with TestClient(create_app(bench.service())) as client:
        yield client


def bodies() -> dict[str, Any]:
    return {
        "/v1/receipts": signed(terms(), 10),
        "/v1/escrows": escrow(terms()),
        "/v1/attestations/challenges": ChallengeRequest(
            node_id=1, enclave_key=actor("enclave").address
        ),
    }


@pytest.mark.parametrize("path", sorted(bodies()))
def test_what_is_handed_in_gets_a_503_with_the_reason_and_when_to_come_again(
    bench: Bench, http: TestClient, path: str
) -> None:
    Gate(bench.store).close("moving house", bench.now())
    body = bodies()[path].model_dump_json()
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == str(RETRY_AFTER)
    problem = answer.json()
    assert (problem["code"], problem["final"]) == ("IntakePaused", False)
    assert (problem["reason"], problem["retry_after"]) == ("moving house", RETRY_AFTER)
    Gate(bench.store).open()
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (201, 202)
    assert "retry-after" not in answer.headers


def test_reading_and_working_go_on(bench: Bench, http: TestClient) -> None:
    bench.open(terms())
    it = signed(terms(), 10)
    bench.intake.submit_receipt(it)
    Gate(bench.store).close("moving house", bench.now())
    bench.rounds()
    answer = http.get(f"/v1/receipts/{to_hex(digest_of(receipt(terms(), 10)))}")
    assert (answer.status_code, answer.json()["status"]) == (200, "SETTLED")
    assert http.get(f"/v1/jobs/{to_hex(key_of(terms()))}").json()["paid"] == 1_000_000
    assert http.get("/v1/nodes").status_code == 200


def test_the_pause_outlives_the_process_and_clients_are_told_to_come_again(
    bench: Bench, http: TestClient
) -> None:
    gate = Gate(bench.store)
    assert gate.pause() is None
    assert gate.close("moving house", 5) == Pause(reason="moving house", since=5)
    bench.restart(store=Store(str(bench.store.engine.url)))
    assert Gate(bench.store).pause() == Pause(reason="moving house", since=5)
    assert Gate(bench.store).close("still moving", 9) == Pause(reason="still moving", since=5)
    client = OracleClient("http://testserver", transport=http._transport)
    with pytest.raises(OracleUnavailable, match="IntakePaused"):
        client.submit_receipt(signed(terms(), 10))
    assert (gate.open(), gate.open()) == (True, False)
    assert client.submit_receipt(signed(terms(), 10)).status is Status.WAITING


def test_readiness_names_the_pause(bench: Bench, http: TestClient) -> None:
    assert http.get("/readyz").json()["checks"]["intake"] == "ok"
    Gate(bench.store).close("moving house", bench.now())
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["intake"] == "paused: moving house"
    assert http.get("/healthz").status_code == 200
