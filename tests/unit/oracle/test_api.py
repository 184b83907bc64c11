"""The HTTP API as clients meet it: through `oracle.client`, and as raw requests."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from unit.oracle.bench import (
    TOKEN,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    signed,
    terms,
)

from oracle.api import create_app
from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.group_commit import GroupCommit
from oracle.limits import LONGER_BODIES, MAX_BODY
from oracle.messages import MAX_RECEIPTS, ChallengeRequest, Status
from settlement.types import to_hex

PROBLEM = "application/problem+json"


@pytest.fixture
def http(bench: Bench) -> Iterator[TestClient]:
    with TestClient(create_app(bench.service()), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> OracleClient:
    return OracleClient("http://testserver", transport=http._transport)


def test_the_whole_way_through_the_client(bench: Bench, client: OracleClient) -> None:
    challenges = client.create_challenge(1, actor("new").address)
    status = client.submit_attestation(evidence(challenges, enclave="new"))
    assert status.status is Status.WAITING
    assert client.submit_escrow(escrow(terms())).status is Status.ACCEPTED
    bench.rounds()
    assert client.attestation(status.digest).status is Status.SETTLED
    assert client.escrow(key_of(terms())).status is Status.SETTLED
    assert client.node(1).valid
    assert {node.enclave_key for node in client.nodes()} == {
        actor("new").address,
        actor("enclave").address,
    }
    it = signed(terms(), 10, by="new")
    assert client.submit_receipt(it).status is Status.ACCEPTED
    bench.rounds()
    settled = client.receipt(digest_of(it.receipt))
    assert (settled.status, settled.amount) == (Status.SETTLED, 1_000_000)
    job = client.job(key_of(terms()))
    assert (job.paid, job.receipts) == (1_000_000, (settled,))


def test_a_forged_receipt_comes_back_rejected_by_name(bench: Bench, client: OracleClient) -> None:
    bench.open(terms())
    status = client.submit_receipt(signed(terms(), 5, by="forger"))
    assert (status.status, status.reason) == (Status.REJECTED, "EnclaveUnknown")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/v1/jobs/{to_hex(bytes(32))}", "JobUnknown"),
        (f"/v1/receipts/{to_hex(bytes(32))}", "ReceiptUnknown"),
        (f"/v1/escrows/{to_hex(bytes(32))}", "EscrowUnknown"),
        (f"/v1/attestations/{to_hex(bytes(32))}", "AttestationUnknown"),
        ("/v1/nodes/9", "NodeUnknown"),
        ("/v1/nothing", "NotFound"),
    ],
)
def test_what_is_not_known_is_a_named_404(http: TestClient, path: str, code: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"receipt": 1}', '{"receipt": {}, "signature": "0x"}']
)
def test_a_malformed_receipt_is_a_named_422(http: TestClient, body: str) -> None:
    answer = http.post("/v1/receipts", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "MalformedRequest")
    assert answer.headers["content-type"] == PROBLEM


def test_an_impossible_signature_is_a_named_422(client: OracleClient) -> None:
    it = signed(terms(), 5).model_copy(update={"signature": bytes(65)})
    with pytest.raises(OracleRefused) as caught:
        client.submit_receipt(it)
    assert (caught.value.code, caught.value.status) == ("InvalidSignature", 422)


def test_stale_evidence_is_a_named_409(client: OracleClient, bench: Bench) -> None:
    challenges = client.create_challenge(1, actor("new").address)
    bench.ledger.time += 600
    with pytest.raises(OracleRefused) as caught:
        client.submit_attestation(evidence(challenges, enclave="new"))
    assert (caught.value.code, caught.value.status) == ("StaleChallenge", 409)


@pytest.mark.parametrize("length", ["counted", "chunked"])
def test_a_body_beyond_the_limit_is_refused_before_it_is_read(
    http: TestClient, length: str
) -> None:
    body: Any = b"x" * (MAX_BODY + 1)
    answer = http.post("/v1/receipts", content=body if length == "counted" else iter([body]))
    assert (answer.status_code, answer.json()["code"]) == (413, "BodyTooLarge")
    assert answer.json()["limit"] == MAX_BODY


def test_a_batch_is_answered_one_by_one_in_its_order(bench: Bench, http: TestClient) -> None:
    bench.open(terms())
    good, forged = signed(terms(), 5), signed(terms(), 5, by="forger")
    impossible = good.model_copy(update={"signature": bytes(65)})
    items = [item.model_dump(mode="json") for item in (good, forged, impossible)]
    broken = [{"receipt": 1}, None, {**items[0], "signature": "0x"}]
    batch = [items[0], broken[0], items[1], broken[1], items[2], items[0], broken[2]]
    answer = http.post("/v1/receipts/batch", json={"receipts": batch})
    assert answer.status_code == 202
    told = [
        (found["receipt"] or {}).get("status") or found["problem"]["code"]
        for found in answer.json()["answers"]
    ]
    bad = "MalformedRequest"
    assert told == ["ACCEPTED", bad, "REJECTED", bad, "InvalidSignature", "ACCEPTED", bad]
    assert (
        answer.json()["answers"][0]["receipt"]
        == http.get(f"/v1/receipts/{to_hex(digest_of(good.receipt))}").json()
    )
    assert len(bench.intake.job(key_of(terms())).receipts) == 2


def test_a_batch_through_the_client(bench: Bench, client: OracleClient) -> None:
    bench.open(terms())
    answers = client.submit_receipts([signed(terms(), 5), signed(terms(), 6, by="forger")])
    assert [(a.receipt and a.receipt.status, a.problem) for a in answers] == [
        (Status.ACCEPTED, None),
        (Status.REJECTED, None),
    ]


@pytest.mark.parametrize("count", [0, MAX_RECEIPTS + 1])
def test_an_empty_or_too_long_batch_is_refused_whole(http: TestClient, count: int) -> None:
    answer = http.post("/v1/receipts/batch", json={"receipts": [None] * count})
    assert (answer.status_code, answer.json()["code"]) == (422, "MalformedRequest")


def test_the_longest_batch_is_within_its_bodys_limit(bench: Bench, http: TestClient) -> None:
    it = signed(terms(), 2**64 - 1, 2**64 - 1).model_dump_json(indent=4)
    body = f'{{"receipts": [{",".join([it] * MAX_RECEIPTS)}]}}'
    assert MAX_BODY < len(body) < LONGER_BODIES["/v1/receipts/batch"]
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/receipts/batch", content=body, headers=headers)
    assert len(answer.json()["answers"]) == MAX_RECEIPTS


def test_when_too_much_waits_the_answer_says_when_to_come_back(bench: Bench) -> None:
    service = bench.service()
    service.commits = GroupCommit(bench.intake.keep, room=0)
    service.commits._count = 1
    with TestClient(create_app(service)) as http:
        answer = http.post("/v1/receipts", json=signed(terms(), 5).model_dump(mode="json"))
    assert (answer.status_code, answer.json()["code"]) == (503, "IntakeBusy")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["challenges", "signatures"])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}])
def test_committee_routes_need_the_operators_token(
    http: TestClient, path: str, header: dict[str, str]
) -> None:
    answer = http.post(f"/v1/committee/{path}", json={}, headers=header)
    assert (answer.status_code, answer.json()["code"]) == (401, "PeerTokenRefused")


def test_with_the_token_an_operator_gives_a_challenge(http: TestClient) -> None:
    request = ChallengeRequest(node_id=1, enclave_key=actor("enclave").address)
    answer = http.post(
        "/v1/committee/challenges",
        json=request.model_dump(),
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 201
    assert len(bytes.fromhex(answer.json()["challenge"][2:])) == 32


def test_an_operator_that_does_not_relay_says_so(bench: Bench) -> None:
    with TestClient(create_app(bench.service(relay=False))) as http:
        client = OracleClient("http://testserver", transport=http._transport)
        with pytest.raises(OracleRefused) as caught:
            client.submit_receipt(signed(terms(), 5))
    assert (caught.value.code, caught.value.final) == ("NotRelaying", True)


def test_when_the_chain_is_down_evidence_can_be_handed_in_later(
    bench: Bench, client: OracleClient
) -> None:
    challenges = client.create_challenge(1, actor("new").address)
    bench.ledger.down = True
    with pytest.raises(OracleUnavailable, match="ChainUnavailable"):
        client.submit_attestation(evidence(challenges, enclave="new"))


def test_alive_but_not_ready_before_the_loops_run(http: TestClient, client: OracleClient) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    readiness = client.health()
    assert not readiness.ready
    assert readiness.checks["watcher"] == "is not running"
    assert http.get("/readyz").status_code == 503


def test_ready_while_all_loops_work_and_not_when_the_chain_goes_away(bench: Bench) -> None:
    service = bench.service()
    service.start()
    try:
        for loop in service.loops:
            _wait(lambda loop=loop: loop.trouble() is None)
        assert service.readiness().ready
        bench.ledger.down = True
        _wait(lambda: service.loops[0].trouble() is not None)
        checks = service.readiness().checks
        assert checks["watcher"].startswith("ChainUnavailable")
        assert checks["chain"].startswith("the chain's endpoint is unavailable")
        bench.ledger.down = False
        for loop in service.loops:
            loop.wake()
            _wait(lambda loop=loop: loop.trouble() is None)
        assert service.readiness().ready
    finally:
        service.stop()
    assert not service.readiness().ready


def _wait(condition: Any) -> None:
    """Wait for another thread, at most five seconds."""

    pause = threading.Event()
    for _ in range(500):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("did not happen in time")


def test_metrics_count_what_the_store_holds(bench: Bench, http: TestClient) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    text = http.get("/metrics").text
    assert 'rapha_oracle_receipts{status="ACCEPTED"} 1.0' in text
    assert f"rapha_oracle_block {float(bench.ledger.finalized().number)}" in text
    assert "rapha_oracle_blocks_behind 0.0" in text
