"""What the client makes of every kind of answer."""

from collections.abc import Callable

import httpx
import pytest

from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.messages import Problem, Readiness

URL = "http://oracle.test"


def client(handler: Callable[[httpx.Request], httpx.Response]) -> OracleClient:
    return OracleClient(URL, transport=httpx.MockTransport(handler))


def problem(status: int, code: str = "JobUnknown", *, final: bool = True) -> httpx.Response:
    body = Problem(title="x", status=status, detail="no such job", code=code, final=final, n=1)
    return httpx.Response(status, text=body.model_dump_json())


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422])
def test_a_no_carries_the_oracles_named_error_and_its_data(status: int) -> None:
    with pytest.raises(OracleRefused) as caught:
        client(lambda _: problem(status, final=False)).job(bytes(32))
    error = caught.value
    assert (error.code, error.status, error.detail) == ("JobUnknown", status, "no such job")
    assert (error.final, error.data) == (False, {"n": 1})


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_trouble_on_the_oracles_side_may_be_tried_again(status: int) -> None:
    with pytest.raises(OracleUnavailable, match="QuorumNotReached: no such job") as caught:
        client(lambda _: problem(status, "QuorumNotReached")).job(bytes(32))
    assert not caught.value.final


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")]
)
def test_no_answer_may_be_tried_again(error: httpx.TransportError) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(OracleUnavailable, match=type(error).__name__) as caught:
        client(fail).nodes()
    assert (caught.value.url, caught.value.final) == (URL, False)


@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_answer_that_is_not_an_oracles_counts_as_none(status: int) -> None:
    with pytest.raises(OracleUnavailable):
        client(lambda _: httpx.Response(status, text="<html>gateway</html>")).job(bytes(32))


def test_not_being_ready_is_an_answer() -> None:
    readiness = Readiness(ready=False, checks={"chain": "down"})
    answer = httpx.Response(503, text=readiness.model_dump_json())
    assert client(lambda _: answer).health() == readiness
