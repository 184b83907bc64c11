"""Receipts and escrows coming in: idempotent, durable, and the same in any order."""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from unit.oracle.bench import (
    DEPLOYMENT,
    GRACE,
    Bench,
    actor,
    digest_of,
    escrow,
    key_of,
    registration,
    signed,
    terms,
)
from unit.oracle.ledger import FINALITY, START

from oracle.errors import AuthorizationLate, JobUnknown, NodeUnknown, ReceiptUnknown
from oracle.intake import Intake
from oracle.messages import JobState, ReceiptStatus, Status
from oracle.store.database import Store
from oracle.store.tables import ReceiptRow
from scripts.postgres import Cluster
from settlement.errors import InvalidSignature
from settlement.models import SignedReceipt


@pytest.fixture
def bench(migrated: str, tmp_path: Path) -> Iterator[Bench]:
    """The same on each kind of database."""
    bench = Bench.create(tmp_path, url=migrated)
    yield bench
    bench.store.close()


def test_a_receipt_for_an_unseen_job_waits_and_is_accepted_once_the_job_is_final(
    bench: Bench,
) -> None:
    it = signed(terms(), 5)
    assert bench.intake.submit_receipt(it).reason == "JobUnseen"
    bench.open(terms())
    assert bench.intake.receipt(digest_of(it.receipt)).status is Status.ACCEPTED


@pytest.mark.parametrize("clock", [0, 2**62], ids=["at the epoch", "far ahead"])
def test_receipts_are_judged_by_the_chains_clock_whatever_this_machines_says(
    bench: Bench, clock: int
) -> None:
    bench.open(terms())
    intake = Intake(bench.store, DEPLOYMENT, lambda: clock)
    assert intake.submit_receipt(signed(terms(), 5)).status is Status.ACCEPTED


def test_the_same_receipt_again_gets_the_same_answer_and_one_row(bench: Bench) -> None:
    bench.open(terms())
    it = signed(terms(), 5)
    assert bench.intake.submit_receipt(it) == bench.intake.submit_receipt(it)
    assert len(bench.intake.job(key_of(terms())).receipts) == 1


def test_a_forged_receipt_is_rejected_and_does_not_take_the_real_ones_place(bench: Bench) -> None:
    bench.open(terms())
    forged, real = signed(terms(), 5, by="forger"), signed(terms(), 5)
    status = bench.intake.submit_receipt(forged)
    assert (status.status, status.reason) == (Status.REJECTED, "EnclaveUnknown")
    assert bench.intake.submit_receipt(real).status is Status.ACCEPTED
    assert bench.intake.submit_receipt(forged).status is Status.REJECTED
    assert bench.intake.receipt(digest_of(real.receipt)).status is Status.ACCEPTED


def test_a_rejected_receipt_is_judged_anew_when_its_enclave_turns_up(bench: Bench) -> None:
    bench.open(terms())
    it = signed(terms(), 5, by="second enclave")
    assert bench.intake.submit_receipt(it).reason == "EnclaveUnknown"
    key = actor("second enclave").address
    bench.ledger.mine(lambda chain: chain.register(registration(enclave_key=key)))
    bench.finalize()
    assert bench.intake.receipt(digest_of(it.receipt)).status is Status.ACCEPTED


def test_a_signature_that_nobody_can_have_made_is_refused(bench: Bench) -> None:
    it = SignedReceipt(receipt=signed(terms(), 5).receipt, signature=bytes(64) + b"\x1b")
    with pytest.raises(InvalidSignature):
        bench.intake.submit_receipt(it)
    with pytest.raises(ReceiptUnknown):
        bench.intake.receipt(digest_of(it.receipt))


def test_revoking_a_measurement_rejects_the_receipts_that_wait_under_it(bench: Bench) -> None:
    bench.open(terms())
    it = signed(terms(), 5)
    bench.intake.submit_receipt(it)
    bench.ledger.mine(lambda chain: chain.allow(registration().measurement, False))
    bench.finalize()
    assert bench.intake.receipt(digest_of(it.receipt)).reason == "MeasurementNotAllowed"
    assert not bench.intake.node(1).valid


def test_revoking_an_enclave_shows_in_its_node_and_in_new_receipts(bench: Bench) -> None:
    bench.open(terms())
    bench.ledger.mine(lambda chain: chain.revoke(actor("enclave").address))
    bench.finalize()
    assert bench.intake.submit_receipt(signed(terms(), 5)).reason == "EnclaveRevoked"
    assert (bench.intake.node(1).revoked, bench.intake.node(1).valid) == (True, False)


def test_a_job_tells_its_story(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 10, 1))
    bench.rounds()
    bench.intake.submit_receipt(signed(terms(), 20, 2, complete=True))
    bench.rounds()
    job = bench.intake.job(key_of(terms()))
    assert (job.state, job.paid, job.refunded) == (JobState.CLOSED, 4_000_000, 96_000_000)
    assert (job.records, job.epochs) == (20, 2)
    assert [(t.event, t.amount) for t in job.transactions] == [
        ("opened", 100_000_000),
        ("settled", 2_000_000),
        ("settled", 2_000_000),
        ("closed", 96_000_000),
    ]


def test_a_job_without_a_node_is_unassigned_and_its_receipts_wait_for_the_assignment(
    bench: Bench,
) -> None:
    job = terms(node_id=0)
    bench.open(job)
    told = bench.intake.job(key_of(job))
    assert (told.state, told.node_id) == (JobState.UNASSIGNED, None)
    it = signed(job, 5)
    status = bench.intake.submit_receipt(it)
    assert (status.status, status.reason) == (Status.WAITING, "JobUnassigned")
    bench.ledger.mine(lambda chain: chain.assign(key_of(job), 1))
    bench.finalize()
    told = bench.intake.job(key_of(job))
    assert (told.state, told.node_id) == (JobState.OPEN, 1)
    assert bench.intake.receipt(digest_of(it.receipt)).status is Status.ACCEPTED
    bench.rounds()
    assert bench.intake.receipt(digest_of(it.receipt)).amount == 500_000
    assert [t.event for t in bench.intake.job(key_of(job)).transactions] == [
        "opened",
        "assigned",
        "settled",
    ]


def test_a_job_assigned_to_another_node_rejects_the_receipts_that_waited(bench: Bench) -> None:
    job = terms(node_id=0)
    bench.open(job)
    it = signed(job, 5)
    bench.intake.submit_receipt(it)
    bench.ledger.mine(lambda chain: chain.assign(key_of(job), 2))
    bench.finalize()
    status = bench.intake.receipt(digest_of(it.receipt))
    assert (status.status, status.reason) == (Status.REJECTED, "EnclaveOfOtherNode")


def test_cancelling_before_a_node_is_found_closes_the_job_and_rejects_what_waited(
    bench: Bench,
) -> None:
    job = terms(node_id=0)
    bench.open(job)
    it = signed(job, 5)
    bench.intake.submit_receipt(it)
    bench.ledger.mine(lambda chain: chain.cancel(key_of(job)))
    bench.finalize()
    told = bench.intake.job(key_of(job))
    assert (told.state, told.node_id, told.refunded) == (JobState.CLOSED, None, job.budget)
    status = bench.intake.receipt(digest_of(it.receipt))
    assert (status.status, status.reason) == (Status.REJECTED, "JobClosed")


def test_cancelling_shortens_how_long_receipts_are_paid(bench: Bench) -> None:
    bench.open(terms())
    assert bench.intake.job(key_of(terms())).payable_until == terms().deadline + GRACE
    in_time, late = signed(terms(), 5), signed(terms(), 6)
    bench.ledger.mine(lambda chain: chain.cancel(key_of(terms())))
    until = bench.ledger.time + GRACE
    bench.finalize()
    job = bench.intake.job(key_of(terms()))
    assert (job.state, job.payable_until) == (JobState.CANCELLING, until)
    assert until < terms().deadline
    bench.ledger.mine(seconds=until - bench.ledger.time)
    for _ in range(FINALITY):
        bench.ledger.mine()
    bench.watch()  # the newest final block is that of the last second
    assert bench.intake.submit_receipt(in_time).status is Status.ACCEPTED
    bench.ledger.mine()
    bench.watch()
    status = bench.intake.submit_receipt(late)
    assert (status.status, status.reason) == (Status.REJECTED, "TooLate")
    assert [(t.event, t.amount) for t in job.transactions] == [
        ("opened", 100_000_000),
        ("cancelled", 0),
    ]


def test_work_finished_in_time_is_paid_after_cancelling(bench: Bench) -> None:
    bench.open(terms())
    bench.ledger.mine(lambda chain: chain.cancel(key_of(terms())))
    bench.finalize()
    bench.intake.submit_receipt(signed(terms(), 20, complete=True))
    bench.rounds()
    job = bench.intake.job(key_of(terms()))
    assert (job.state, job.paid, job.refunded) == (JobState.CLOSED, 2_000_000, 98_000_000)


def test_a_top_up_lets_the_receipts_that_hit_the_budget_earn_more(bench: Bench) -> None:
    bench.open(terms())
    paid, covered = signed(terms(), 1_500), signed(terms(), 1_200)
    bench.intake.submit_receipt(paid)
    bench.intake.submit_receipt(covered)
    bench.rounds()
    assert bench.ledger.paid() == {key_of(terms()): (100_000_000, False)}
    bench.ledger.mine(lambda chain: chain.top_up(key_of(terms()), 40_000_000))
    bench.finalize()
    job = bench.intake.job(key_of(terms()))
    assert (job.funded, job.paid) == (140_000_000, 100_000_000)
    assert bench.intake.receipt(digest_of(paid.receipt)).status is Status.ACCEPTED
    bench.rounds()
    assert bench.ledger.paid() == {key_of(terms()): (140_000_000, False)}
    again = bench.intake.receipt(digest_of(paid.receipt))
    assert (again.status, again.reason, again.amount) == (Status.SETTLED, None, 140_000_000)
    other = bench.intake.receipt(digest_of(covered.receipt))
    assert (other.status, other.reason, other.amount) == (Status.SETTLED, "Covered", 0)
    assert [(t.event, t.amount) for t in bench.intake.job(key_of(terms())).transactions] == [
        ("opened", 100_000_000),
        ("settled", 100_000_000),
        ("topped_up", 40_000_000),
        ("settled", 40_000_000),
    ]


def test_a_voided_job_takes_neither_its_escrow_nor_receipts(bench: Bench) -> None:
    bench.intake.submit_escrow(escrow(terms()))
    it = signed(terms(), 5)
    bench.intake.submit_receipt(it)
    bench.ledger.mine(lambda chain: chain.void(terms()))
    bench.finalize()
    status = bench.intake.escrow(key_of(terms()))
    assert (status.status, status.reason) == (Status.REJECTED, "JobVoided")
    assert bench.intake.receipt(digest_of(it.receipt)).reason == "JobVoided"
    again = bench.intake.submit_escrow(escrow(terms()))
    assert (again.status, again.reason) == (Status.REJECTED, "JobVoided")
    bench.relayer.tick()
    assert bench.ledger.sent == []
    with pytest.raises(JobUnknown):
        bench.intake.job(key_of(terms()))


def test_an_unknown_job_and_an_unattested_node_have_named_errors(bench: Bench) -> None:
    with pytest.raises(JobUnknown):
        bench.intake.job(key_of(terms(99)))
    with pytest.raises(NodeUnknown, match="node 2 has no registered enclave"):
        bench.intake.node(2)


def test_an_authorization_that_ran_out_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(AuthorizationLate):
        bench.intake.submit_escrow(escrow(terms(), valid_before=START))


def test_a_false_authorization_cannot_block_the_payers_own(bench: Bench) -> None:
    bench.intake.submit_escrow(escrow(terms(), by="thief"))
    bench.intake.submit_escrow(escrow(terms()))
    bench.intake.submit_escrow(escrow(terms(), by="thief"))
    bench.rounds()
    assert bench.intake.escrow(key_of(terms())).status is Status.SETTLED


def test_an_escrow_of_a_job_that_is_open_already_is_settled(bench: Bench) -> None:
    bench.open(terms())
    assert bench.intake.submit_escrow(escrow(terms())).status is Status.SETTLED
    assert bench.intake.submit_escrow(escrow(terms())).status is Status.SETTLED


class Hesitant(Store):
    """Waits before it commits what it shares."""

    reached, go = threading.Event(), threading.Event()

    @contextmanager
    def share(self) -> Iterator[Session]:
        with super().share() as session:
            yield session
            self.reached.set()
            self.go.wait()


def test_the_same_receipts_at_two_instances_at_once_are_one_row_each(
    cluster: Cluster, tmp_path: Path
) -> None:
    bench = Bench.create(tmp_path, url=cluster.create_migrated())
    hesitant = Hesitant(bench.store.engine.url.render_as_string())
    other = Intake(hesitant, DEPLOYMENT, bench.now)
    batch = [bench.intake.verify(signed(terms(), records)) for records in (1, 2, 3)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(other.keep, batch[:2])
        hesitant.reached.wait()
        second = pool.submit(bench.intake.keep, batch[::-1])
        # it comes upon what the other has not committed yet, and waits for that
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory'")
        while True:
            with bench.store.read() as session:
                if session.scalar(waiting):
                    break
        hesitant.go.set()
        assert second.result()[::-1][:2] == first.result()
    with bench.store.read() as session:
        assert sorted(session.scalars(select(ReceiptRow.records))) == [1, 2, 3]
    hesitant.close()
    bench.store.close()


def test_a_job_lists_the_receipts_that_claim_the_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oracle.intake.MAX_LISTED", 2)
    bench.open(terms())
    bench.intake.keep([bench.intake.verify(signed(terms(), n)) for n in (3, 1, 2)])
    assert [found.records for found in bench.intake.job(key_of(terms())).receipts] == [2, 3]


def test_more_receipts_than_a_page_are_all_judged_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oracle.verdicts.PAGE", 2)
    its = [signed(terms(), records) for records in range(1, 6)]
    bench.intake.keep([bench.intake.verify(it) for it in its])
    bench.open(terms())
    statuses = {bench.intake.receipt(digest_of(it.receipt)).status for it in its}
    assert statuses == {Status.ACCEPTED}


POOL = [
    signed(terms(), 5),
    signed(terms(), 10, 1),
    signed(terms(), 10, 1, by="forger"),
    signed(terms(), 10, 1, by="second enclave"),
    signed(terms(), 12, 1, complete=True),
    signed(terms(2), 3),
    signed(terms(3, node_id=0), 4),
]
DEEDS = ["open", "open 2", "open 3", "assign 3", "register"]


@settings(max_examples=25)
@given(
    st.permutations([*range(len(POOL)), *DEEDS]),
    st.lists(st.integers(0, len(POOL) - 1), max_size=6),
)
def test_any_order_and_repetition_of_receipts_and_events_ends_in_the_same_state(
    order: list[Any], again: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench.create(Path(directory))
        for deed in [*order, *again]:
            _do(bench, deed)
        before = _statuses(bench)
        assert before == [(Status.ACCEPTED, None)] * len(POOL)
        assert _do(bench, 2).reason == "EnclaveUnknown"
        bench.rounds(8)
        assert bench.ledger.paid() == {
            key_of(terms()): (2_200_000, True),
            key_of(terms(2)): (300_000, False),
            key_of(terms(3, node_id=0)): (400_000, False),
        }
        assert {status for status, _ in _statuses(bench)} == {Status.SETTLED}
        bench.store.close()


def _do(bench: Bench, deed: int | str) -> Any:
    if isinstance(deed, int):
        return bench.intake.submit_receipt(POOL[deed])
    if deed == "register":
        key = actor("second enclave").address
        bench.ledger.mine(lambda chain: chain.register(registration(enclave_key=key)))
    elif deed.endswith("3"):
        job = terms(3, node_id=0)
        if key_of(job) not in bench.ledger.state.jobs:
            bench.ledger.mine(lambda chain: chain.open(job))
        if deed == "assign 3":
            bench.ledger.mine(lambda chain: chain.assign(key_of(job), 1))
    else:
        bench.ledger.mine(lambda chain: chain.open(terms(2 if deed == "open 2" else 0)))
    return bench.finalize()


def _statuses(bench: Bench) -> list[tuple[Status, str | None]]:
    found: list[ReceiptStatus] = [bench.intake.receipt(digest_of(it.receipt)) for it in POOL]
    return [
        (status.status, None if status.reason == "Covered" else status.reason) for status in found
    ]
