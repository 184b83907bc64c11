"""Receipts that come in together share a transaction, and only trouble of their own."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from unit.oracle.bench import Bench, digest_of, signed, terms

from oracle.errors import IntakeBusy, IntakeClosed
from oracle.group_commit import GroupCommit
from oracle.intake import Verified
from oracle.messages import ReceiptStatus
from oracle.store.tables import ReceiptRow

WAIT = 10


class Gated:
    """Keeps receipts as the intake does, each time once the test lets it."""

    def __init__(self, keep: Callable[[Sequence[Verified]], list[ReceiptStatus]]) -> None:
        self._keep = keep
        self.sizes: list[int] = []
        self.begun, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.failure: Callable[[Sequence[Verified]], Exception | None] = lambda _: None

    def __call__(self, batch: Sequence[Verified]) -> list[ReceiptStatus]:
        self.sizes.append(len(batch))
        self.begun.release()
        assert self.gate.acquire(timeout=WAIT)
        failure = self.failure(batch)
        if failure:
            raise failure
        return self._keep(batch)


@pytest.fixture
def gated(bench: Bench) -> Gated:
    return Gated(bench.intake.keep)


def verified(bench: Bench, records: int) -> Verified:
    return bench.intake.verify(signed(terms(), records))


def one_by_one(
    bench: Bench, commits: GroupCommit, gated: Gated, records: range
) -> list["Future[list[ReceiptStatus]]"]:
    """The first is being written while the others come in."""
    futures = [commits.put([verified(bench, records[0])])]
    assert gated.begun.acquire(timeout=WAIT)
    return futures + [commits.put([verified(bench, r)]) for r in records[1:]]


def test_what_comes_in_during_a_commit_shares_the_next_one(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated)
    futures = one_by_one(bench, commits, gated, range(1, 8))
    gated.gate.release(2)
    assert [future.result(WAIT)[0].records for future in futures] == list(range(1, 8))
    assert gated.sizes == [1, 6]
    commits.close()


def test_a_transaction_has_a_bounded_size(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated, most=4)
    futures = one_by_one(bench, commits, gated, range(1, 8))
    gated.gate.release(3)
    for future in futures:
        future.result(WAIT)
    assert gated.sizes == [1, 4, 2]
    commits.close()


def test_more_than_there_is_room_for_is_refused_and_told_when_to_come_back(
    bench: Bench, gated: Gated
) -> None:
    commits = GroupCommit(gated, room=3)
    futures = one_by_one(bench, commits, gated, range(1, 4))
    with pytest.raises(IntakeBusy) as refusal:
        commits.put([verified(bench, 9)])
    assert (refusal.value.waiting, refusal.value.retry_after, refusal.value.final) == (3, 1, False)
    gated.gate.release(3)
    for future in futures:
        future.result(WAIT)
    assert gated.begun.acquire(timeout=WAIT)
    commits.close()
    with pytest.raises(IntakeClosed):
        commits.put([verified(bench, 9)])


def test_what_waits_is_written_before_the_end(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated)
    futures = one_by_one(bench, commits, gated, range(1, 4))
    gated.gate.release(2)
    commits.close()
    assert all(future.done() for future in futures)
    assert bench.intake.receipt(digest_of(signed(terms(), 3).receipt)).records == 3


def test_one_that_cannot_be_written_fails_alone(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated)
    gated.failure = lambda batch: (
        ValueError("no") if any(v.signed.receipt.records == 3 for v in batch) else None
    )
    futures = one_by_one(bench, commits, gated, range(1, 5))
    gated.gate.release(5)
    with pytest.raises(ValueError, match="no"):
        futures[2].result(WAIT)
    assert [futures[i].result(WAIT)[0].records for i in (0, 1, 3)] == [1, 2, 4]
    assert gated.sizes == [1, 3, 1, 1, 1]
    commits.close()


def test_a_database_that_does_not_answer_is_asked_once_for_all(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated)
    gated.failure = lambda batch: OperationalError("x", {}, Exception()) if len(batch) > 1 else None
    futures = one_by_one(bench, commits, gated, range(1, 4))
    gated.gate.release(2)
    for future in futures[1:]:
        with pytest.raises(OperationalError):
            future.result(WAIT)
    assert gated.sizes == [1, 2]
    commits.close()


def test_whoever_left_before_the_write_has_nothing_kept(bench: Bench, gated: Gated) -> None:
    commits = GroupCommit(gated)
    futures = one_by_one(bench, commits, gated, range(1, 4))
    assert futures[1].cancel()
    gated.gate.release(2)
    assert futures[2].result(WAIT)[0].records == 3
    assert gated.sizes == [1, 1]
    commits.close()


def test_the_same_receipts_from_many_sides_are_one_row_each(bench: Bench) -> None:
    bench.open(terms())
    commits = GroupCommit(bench.intake.keep)
    batch = [verified(bench, records) for records in (1, 2, 3, 2, 1)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: commits.put(batch).result(WAIT), range(16)))
    assert answers == [answers[0]] * 16
    assert [status.records for status in answers[0]] == [1, 2, 3, 2, 1]
    with bench.store.read() as session:
        assert session.scalar(select(func.count()).select_from(ReceiptRow)) == 3
    commits.close()
