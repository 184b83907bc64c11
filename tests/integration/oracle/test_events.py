"""Changes as a client follows them over HTTP: from now on, and on from where it was."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from unit.oracle.bench import Bench, digest_of, key_of, signed, terms

from oracle.api import create_app
from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.feed import Feed
from oracle.messages import Change, ChangeKind
from oracle.service import Service
from scripts.chain import free_port

WAIT = 60


class Served:
    """An oracle under its HTTP server, in a thread."""

    def __init__(self, bench: Bench, service: Service) -> None:
        self.bench, self.service = bench, service
        self.url = f"http://127.0.0.1:{free_port()}"
        port = int(self.url.rsplit(":", 1)[1])
        config = uvicorn.Config(create_app(service), port=port, log_config=None)
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> "Served":
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server, and with it all streams."""
        self._server.should_exit = True
        self._thread.join(WAIT)

    def client(self) -> OracleClient:
        """A client of its own."""
        return OracleClient(self.url, timeout=WAIT)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    bench = Bench.create(tmp_path)
    with Served(bench, bench.service()) as served:
        yield served
    bench.store.close()


def test_a_follower_goes_on_from_where_it_was(served: Served) -> None:
    first, second = signed(terms(1), 5), signed(terms(2), 5)
    with served.client() as client:
        client.submit_receipt(first)
        changes = client.changes("0-0")
        seen = next(changes)
        changes.close()
        assert seen == Change(
            position=seen.position,
            kind=ChangeKind.RECEIPT,
            key=digest_of(first.receipt),
            job_id=key_of(terms(1)),
            signer=served.bench.intake.verify(first).signer,
            status="WAITING",
            reason="JobUnseen",
        )
        client.submit_receipt(second)
        again = client.changes(seen.position)
        assert next(again).key == digest_of(second.receipt)
        again.close()


def test_who_follows_one_job_hears_of_no_other(served: Served) -> None:
    with served.client() as client:
        client.submit_receipts([signed(terms(1), 5), signed(terms(2), 5), signed(terms(1), 6)])
        changes = client.changes("0-0", job_id=key_of(terms(1)))
        assert [next(changes).job_id for _ in range(2)] == [key_of(terms(1))] * 2
        changes.close()


def test_what_comes_later_reaches_one_that_waits(served: Served) -> None:
    got: list[Change] = []
    with served.client() as client, served.client() as other:
        changes = client.changes()
        waiting = threading.Thread(target=lambda: got.append(next(changes)))
        waiting.start()
        while not served.service.feed.following:
            assert waiting.is_alive()
        other.submit_receipt(signed(terms(), 5))
        waiting.join(WAIT)
    assert [change.status for change in got] == ["WAITING"]


def test_a_position_that_is_none_is_refused_by_name(served: Served) -> None:
    with served.client() as client:
        for position in ("x", "0-5"):
            with pytest.raises(OracleRefused) as caught:
                next(client.changes(position))
            assert (caught.value.code, caught.value.status) == ("PositionUnknown", 422)


def test_one_follower_too_many_is_told_when_to_come_back(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path)
    service = bench.service()
    service.feed = Feed(bench.store, followers=0)
    with Served(bench, service) as served, served.client() as client:
        with pytest.raises(OracleUnavailable, match="TooManyFollowers") as caught:
            next(client.changes())
        assert caught.value.retry_after == 5
    bench.store.close()


def test_the_end_of_the_server_is_no_end_of_the_changes(served: Served) -> None:
    with served.client() as client:
        client.submit_receipt(signed(terms(), 5))
        changes = client.changes("0-0")
        assert next(changes).status == "WAITING"
        served.stop()
        with pytest.raises(OracleUnavailable):
            next(changes)
