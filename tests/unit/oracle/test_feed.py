"""The changes that followers are told: each one, in an order to go on from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select
from starlette.types import Message, Receive, Scope, Send
from unit.oracle.bench import (
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    signed,
    terms,
)

from oracle.errors import PositionUnknown, TooManyFollowers
from oracle.feed import BEGINNING, Feed, Position
from oracle.messages import ChallengeRequest, Change, ChangeKind
from oracle.store.database import Store
from oracle.store.tables import JobRow, MeasurementRow, ReceiptRow
from scripts.postgres import Cluster

NOBODY: Scope = {"type": "http", "asgi": {}, "method": "GET", "path": "/", "headers": []}


@pytest.fixture
def bench(migrated: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench.create(tmp_path, url=migrated)
    yield bench
    bench.store.close()


@pytest.fixture
def feed(bench: Bench) -> Feed:
    return Feed(bench.store, poll=0.01)


def told(changes: list[Change], kind: ChangeKind) -> list[tuple[str, str | None]]:
    return [(change.status, change.reason) for change in changes if change.kind is kind]


def test_everything_that_changes_its_status_is_told(bench: Bench, feed: Feed) -> None:
    request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
    attestation = bench.quorum.submit(evidence(bench.quorum.challenges(request), enclave="new"))
    bench.intake.submit_escrow(escrow(terms()))
    it = signed(terms(), 10, by="new")
    bench.intake.submit_receipt(it)
    bench.intake.submit_receipt(it)
    bench.rounds(12)
    changes = feed.page(BEGINNING)
    positions = [Position.parse(change.position) for change in changes]
    assert positions == sorted(set(positions))
    assert feed.newest() == positions[-1]
    assert told(changes, ChangeKind.RECEIPT) == [
        ("WAITING", "JobUnseen"),
        ("ACCEPTED", None),
        ("SUBMITTED", None),
        ("SETTLED", None),
    ]
    assert told(changes, ChangeKind.ESCROW) == [
        ("ACCEPTED", None),
        ("SUBMITTED", None),
        ("SETTLED", None),
    ]
    assert told(changes, ChangeKind.ATTESTATION)[0] == ("WAITING", None)
    assert told(changes, ChangeKind.ATTESTATION)[-2:] == [("SUBMITTED", None), ("SETTLED", None)]
    assert told(changes, ChangeKind.JOB) == [("opened", None), ("settled", None)]
    of_receipt = next(change for change in changes if change.kind is ChangeKind.RECEIPT)
    assert (of_receipt.key, of_receipt.job_id) == (digest_of(it.receipt), key_of(terms()))
    assert of_receipt.signer == actor("new").address
    assert {c.key for c in changes if c.kind is ChangeKind.ATTESTATION} == {attestation.digest}


def test_pages_go_on_from_a_position_and_hold_one_job_if_asked(bench: Bench, feed: Feed) -> None:
    for salt in range(3):
        bench.intake.submit_receipt(signed(terms(salt), 5))
    everything = feed.page(BEGINNING)
    assert [change.job_id for change in everything] == [key_of(terms(salt)) for salt in range(3)]
    first = feed.page(BEGINNING, limit=2)
    rest = feed.page(Position.parse(first[-1].position))
    assert first + rest == everything
    assert feed.page(BEGINNING, key_of(terms(1))) == everything[1:2]


def test_a_job_that_the_chain_took_back_is_told(bench: Bench, feed: Feed) -> None:
    bench.open(terms())
    with bench.store.write() as session:
        session.delete(session.get_one(JobRow, key_of(terms())))
    assert told(feed.page(BEGINNING), ChangeKind.JOB) == [("opened", None), ("forgotten", None)]


def test_where_a_follower_begins(bench: Bench, feed: Feed) -> None:
    assert feed.start_from(None) == BEGINNING
    bench.intake.submit_receipt(signed(terms(), 5))
    newest = feed.newest()
    assert newest > BEGINNING
    assert feed.start_from(None) == newest
    assert feed.start_from(str(newest)) == newest
    assert feed.start_from("0-0") == BEGINNING


@pytest.mark.parametrize(
    "position", ["", "1", "0-", "-1-0", "0-0-0", "a-b", "0-99", "9" * 19 + "-0", "0-" + "9" * 99]
)
def test_what_is_no_position_of_ours_is_refused(feed: Feed, position: str) -> None:
    with pytest.raises(PositionUnknown):
        feed.start_from(position)


def test_an_earlier_transaction_that_commits_later_is_not_passed_over(
    cluster: Cluster, tmp_path: Path
) -> None:
    bench = Bench.create(tmp_path, url=cluster.create_migrated())
    early, late = Store(str(bench.store.engine.url)), Feed(bench.store)
    bench.intake.submit_receipt(signed(terms(1), 5))
    bench.intake.submit_receipt(signed(terms(2), 5))
    begun = late.newest()
    with early.share() as session:
        session.scalars(
            select(ReceiptRow).where(ReceiptRow.job_id == key_of(terms(1)))
        ).one().reason = "X"
        session.flush()
        # Its change has a number already; this one's is higher, and commits first.
        bench.intake.submit_receipt(signed(terms(3), 5))
        assert late.page(begun) == []
        assert late.newest() == begun
    assert [change.reason for change in late.page(begun)] == ["X", "JobUnseen"]
    early.close()
    bench.store.close()


def test_followers_are_bounded(bench: Bench) -> None:
    feed = Feed(bench.store, followers=0)
    with pytest.raises(TooManyFollowers) as refusal:
        feed.follow(BEGINNING)
    assert (refusal.value.limit, refusal.value.retry_after) == (0, 5)


async def stay() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def follow(feed: Feed, send: Send, receive: Receive = stay, **options: Any) -> None:
    with anyio.fail_after(20):
        await feed.follow(BEGINNING, **options)(NOBODY, receive, send)


def test_a_follower_that_does_not_read_is_cut_off(bench: Bench) -> None:
    bench.intake.submit_receipt(signed(terms(), 5))
    feed = Feed(bench.store, send_timeout=0.05)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            assert feed.following == 1
            await anyio.sleep_forever()

    anyio.run(follow, feed, send)
    assert feed.following == 0


def test_a_follower_that_leaves_is_counted_no_more(bench: Bench, feed: Feed) -> None:
    bench.intake.submit_receipt(signed(terms(), 5))
    bodies: list[bytes] = []

    async def play() -> None:
        got = anyio.Event()

        async def send(message: Message) -> None:
            bodies.append(message.get("body", b""))
            if b"data:" in bodies[-1]:
                got.set()

        async def receive() -> Message:
            await got.wait()
            return {"type": "http.disconnect"}

        await follow(feed, send, receive)

    anyio.run(play)
    assert feed.following == 0
    lines = dict(line.split(": ", 1) for line in b"".join(bodies).decode().strip().splitlines())
    assert lines["event"] == "receipt"
    assert lines["id"] == json.loads(lines["data"])["position"] == str(feed.newest())


def test_silence_is_broken_by_heartbeats(bench: Bench) -> None:
    feed = Feed(bench.store, heartbeat=0.01)

    async def play() -> list[bytes]:
        bodies: list[bytes] = []
        twice = anyio.Event()

        async def send(message: Message) -> None:
            bodies.append(message.get("body", b""))
            if sum(body.startswith(b": ping") for body in bodies) == 2:
                twice.set()

        async def receive() -> Message:
            await twice.wait()
            return {"type": "http.disconnect"}

        await follow(feed, send, receive)
        return bodies

    assert anyio.run(play)


def test_a_change_reaches_those_who_follow_its_job_and_others_do_not_see_it(
    bench: Bench, feed: Feed
) -> None:
    async def play() -> list[str]:
        seen: list[str] = []
        done = anyio.Event()

        async def send(message: Message) -> None:
            for line in message.get("body", b"").decode().splitlines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["status"])
            if len(seen) == 2:
                done.set()

        async def receive() -> Message:
            await done.wait()
            return {"type": "http.disconnect"}

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: follow(feed, send, receive, job=key_of(terms(1))))
            for records in (5, 6):
                for salt in (2, 1):
                    it = signed(terms(salt), records)
                    await anyio.to_thread.run_sync(bench.intake.submit_receipt, it)
        return seen

    assert anyio.run(play) == ["WAITING", "WAITING"]


def test_measurements_are_nobodys_status(bench: Bench, feed: Feed) -> None:
    with bench.store.write() as session:
        session.add(MeasurementRow(measurement=b"1", allowed=True))
    assert feed.newest() == BEGINNING
