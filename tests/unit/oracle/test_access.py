"""Who may ask what, how often, and with how long a body."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message
from unit.oracle.bench import Bench, signed, terms

from oracle.api import create_app
from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.config import OracleSettings
from oracle.errors import RateLimited
from oracle.keys import Scope
from oracle.limits import AccessPolicy, BodyLimit, RateLimits, address_of
from oracle.messages import MAX_RECEIPTS, Status
from oracle.problems import refuse
from oracle.service import Service
from settlement.types import to_hex

JOB = f"/v1/jobs/{to_hex(bytes(32))}"


@contextmanager
def serving(bench: Bench, policy: AccessPolicy) -> Iterator[tuple[Service, TestClient]]:
    service = bench.service()
    service.access = policy
    service.rates = RateLimits(policy)
    with TestClient(create_app(service), raise_server_exceptions=False) as http:
        yield service, http


CLOSED = AccessPolicy(key_required=True)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("token", ["", "rapha_0123456789abcdef_" + "A" * 43, "rapha_x"])
def test_a_closed_oracle_wants_a_key_it_knows(bench: Bench, token: str) -> None:
    with serving(bench, CLOSED) as (_, http):
        answer = http.get(JOB, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (401, "ApiKeyRefused")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_false_key_is_refused_also_where_none_is_needed(bench: Bench) -> None:
    with serving(bench, AccessPolicy()) as (_, http):
        assert http.get(JOB).status_code == 404
        answer = http.get(JOB, headers=bearer("rapha_x"))
    assert (answer.status_code, answer.json()["code"]) == (401, "ApiKeyRefused")


@pytest.mark.parametrize("policy", [CLOSED, AccessPolicy()])
def test_each_scope_opens_its_routes_and_no_other(bench: Bench, policy: AccessPolicy) -> None:
    body = signed(terms(), 5).model_dump(mode="json")
    with serving(bench, policy) as (service, http):
        for scope in Scope:
            _, token = service.keys.add(scope, [scope])
            headers = bearer(token)
            answers = {
                Scope.READ: http.get(JOB, headers=headers),
                Scope.SUBMIT: http.post("/v1/receipts", json=body, headers=headers),
                Scope.OPERATE: http.get("/metrics", headers=headers),
            }
            for other, answer in answers.items():
                if other is scope:
                    assert answer.status_code in (200, 202, 404)
                else:
                    assert (answer.status_code, answer.json()["scope"]) == (403, other)


def test_the_operators_token_may_look_like_a_key(bench: Bench) -> None:
    with serving(bench, CLOSED) as (service, http):
        service.peer_token = "rapha_" + "x" * 32
        answer = http.post("/v1/committee/challenges", json={}, headers=bearer(service.peer_token))
    assert (answer.status_code, answer.json()["code"]) == (422, "MalformedRequest")


def test_health_is_open_to_all(bench: Bench) -> None:
    with serving(bench, CLOSED) as (_, http):
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 503
        assert http.get("/metrics").status_code == 401


def test_the_client_brings_its_key(bench: Bench) -> None:
    with serving(bench, CLOSED) as (service, http):
        _, token = service.keys.add("hub", [Scope.SUBMIT])
        client = OracleClient("http://testserver", transport=http._transport, token=token)
        assert client.submit_receipt(signed(terms(), 5)).status is Status.WAITING
        with pytest.raises(OracleRefused) as caught:
            client.nodes()
        assert caught.value.code == "ScopeMissing"


def test_too_many_requests_are_told_when_to_come_back(bench: Bench) -> None:
    policy = AccessPolicy(per_key="3/day", per_address="2/day")
    with serving(bench, policy) as (service, http):
        _, token = service.keys.add("hub", [Scope.READ])
        assert [http.get(JOB).status_code for _ in range(3)] == [404, 404, 429]
        mine = [http.get(JOB, headers=bearer(token)).status_code for _ in range(4)]
        assert mine == [404, 404, 404, 429]
        answer = http.get(JOB)
        assert answer.json()["code"] == "RateLimited"
        assert 0 < int(answer.headers["retry-after"]) <= 24 * 3600
        assert http.get("/healthz").status_code == 200
        client = OracleClient("http://testserver", transport=http._transport)
        with pytest.raises(OracleUnavailable, match="RateLimited") as caught:
            client.nodes()
        assert caught.value.retry_after == int(answer.headers["retry-after"])


def test_false_keys_are_counted_by_address(bench: Bench) -> None:
    with serving(bench, AccessPolicy(per_address="2/day")) as (_, http):
        answers = [http.get(JOB, headers=bearer("rapha_x")).status_code for _ in range(3)]
    assert answers == [401, 401, 429]


def test_each_receipt_of_a_batch_counts(bench: Bench) -> None:
    with serving(bench, AccessPolicy(per_address="4/day")) as (_, http):
        client = OracleClient("http://testserver", transport=http._transport)
        batch = [signed(terms(), records) for records in (1, 2, 3)]
        assert len(client.submit_receipts(batch)) == 3
        with pytest.raises(OracleUnavailable, match="RateLimited"):
            client.submit_receipts(batch)


def test_a_refused_charge_is_not_counted() -> None:
    rates = RateLimits(AccessPolicy(per_address="4/day"))
    rates.charge(None, "a", 3)
    with pytest.raises(RateLimited, match="more than 4 per 1 day"):
        rates.charge(None, "a", 2)
    rates.charge(None, "a", 1)
    rates.charge(None, "b", 4)


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("testclient", 1), "testclient"),
        (None, "unknown"),
    ],
)
def test_clients_are_counted_by_address_or_network(client: Any, counted: str) -> None:
    assert address_of({"type": "http", "client": client}) == counted


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def unreached(*_: Any) -> None:
        raise AssertionError("the body is not there yet")

    limit = BodyLimit(unreached, refuse, timeout=0.01)
    scope = {"type": "http", "path": "/v1/receipts", "headers": []}
    anyio.run(limit, scope, receive, send)
    assert sent[0]["status"] == 408
    assert b'"code":"BodyTooSlow"' in sent[1]["body"]


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "10.0.0.1"}, True),
        ({"host": "0.0.0.0", "require_api_key": False}, False),
        ({"require_api_key": True}, True),
    ],
)
def test_keys_are_needed_where_others_can_reach_the_oracle(
    settings: dict[str, Any], required: bool
) -> None:
    assert configured(**settings).access.key_required is required


@pytest.mark.parametrize("rate", ["", "often", f"{MAX_RECEIPTS - 1}/minute"])
def test_a_rate_must_allow_a_batch(rate: str) -> None:
    with pytest.raises(ValueError, match="rate_per_key"):
        configured(rate_per_key=rate)
    assert configured(rate_per_key=f"{MAX_RECEIPTS}/minute").access.per_key == "500/minute"


def configured(**changes: Any) -> OracleSettings:
    files = {"deployment_file": "d", "committee_key_file": "k", "peer_token_file": "t"}
    return OracleSettings(rpc_url="http://x", collateral_file="c", **files, **changes)
