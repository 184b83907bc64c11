"""The client turns every answer into a model or a named error."""

import httpx
import pytest

from settlement.hub.client import HubClient, HubRefused, HubUnavailable


def client(answer: httpx.Response | Exception) -> HubClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HubClient("http://hub", "secret-key", httpx.MockTransport(handle))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503, json={"code": "OracleUnavailable", "detail": "the oracle is down"}),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(200, text="<html>captive portal</html>"),
        httpx.Response(200, json={"unexpected": 1}),
    ],
)
def test_trouble_that_may_pass_is_unavailable(answer: httpx.Response | Exception) -> None:
    with pytest.raises(HubUnavailable) as caught:
        client(answer).catalogue()
    assert caught.value.final is False
    assert "secret-key" not in str(caught.value)


def test_refusal_keeps_the_hubs_words() -> None:
    problem = {
        "type": "about:blank",
        "title": "BudgetTooSmall",
        "status": 422,
        "detail": "too small",
        "code": "BudgetTooSmall",
        "final": True,
        "needed": 5,
        "given": 1,
    }
    with pytest.raises(HubRefused) as caught:
        client(httpx.Response(422, json=problem)).catalogue()
    error = caught.value
    assert (error.code, error.status, error.detail, error.final) == (
        "BudgetTooSmall",
        422,
        "too small",
        True,
    )
    assert error.data == {"needed": 5, "given": 1}
    assert str(error) == "the hub refused (BudgetTooSmall): too small"


@pytest.mark.parametrize("body", ["<html>", "[]", ""])
def test_refusal_by_something_else_is_named_by_its_status(body: str) -> None:
    with pytest.raises(HubRefused) as caught:
        client(httpx.Response(403, text=body)).catalogue()
    assert caught.value.code == "Http403"


def test_nothing_to_lease_is_none() -> None:
    with client(httpx.Response(204)) as hub:
        assert hub.lease(1) is None


def test_key_travels_as_a_bearer_token_only() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"entries": []})

    HubClient("http://hub", "secret-key", httpx.MockTransport(handle)).catalogue()
    assert seen[0].headers["authorization"] == "Bearer secret-key"
    assert "secret-key" not in str(seen[0].url)
