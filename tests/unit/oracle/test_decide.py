"""The verdict about a receipt, for every combination of facts that matters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.oracle.bench import GRACE, OUTPUT, receipt, terms
from unit.oracle.ledger import START

from oracle.decide import (
    REFUSALS,
    EnclaveFact,
    JobFact,
    Reason,
    SettledFact,
    due,
    judge,
)
from oracle.messages import Status
from settlement.contracts import Outcome
from settlement.models import Receipt

TERMS = terms()
UNTIL = TERMS.deadline + GRACE
JOB = JobFact(
    terms=TERMS,
    node_id=1,
    funded=TERMS.budget,
    closed=False,
    paid=0,
    output_digest=None,
    payable_until=UNTIL,
)
ENCLAVE = EnclaveFact(node_id=1, expiry=UNTIL * 2, revoked=False, measurement_allowed=True)
PAID = SettledFact(transaction=bytes(32), block=7, amount=5)


def job(**changes: Any) -> JobFact:
    return JobFact(**{**vars(JOB), **changes})


def enclave(**changes: Any) -> EnclaveFact:
    return EnclaveFact(**{**vars(ENCLAVE), **changes})


TEN = receipt(TERMS, 10)
DONE = receipt(TERMS, 10, complete=True)
MUCH = receipt(TERMS, 2_000)


@pytest.mark.parametrize(
    ("it", "facts", "status", "reason"),
    [
        (TEN, {}, Status.ACCEPTED, None),
        (TEN, {"job": None}, Status.WAITING, Reason.JOB_UNSEEN),
        (TEN, {"job": None, "enclave": None}, Status.WAITING, Reason.JOB_UNSEEN),
        (TEN, {"enclave": None}, Status.REJECTED, Reason.ENCLAVE_UNKNOWN),
        (
            TEN,
            {"enclave": enclave(node_id=2)},
            Status.REJECTED,
            Reason.ENCLAVE_OF_OTHER_NODE,
        ),
        (TEN, {"enclave": enclave(revoked=True)}, Status.REJECTED, Reason.ENCLAVE_REVOKED),
        (TEN, {"enclave": enclave(expiry=START)}, Status.REJECTED, Reason.ENCLAVE_EXPIRED),
        (TEN, {"enclave": enclave(expiry=START + 1)}, Status.ACCEPTED, None),
        (
            TEN,
            {"enclave": enclave(measurement_allowed=False)},
            Status.REJECTED,
            Reason.MEASUREMENT_NOT_ALLOWED,
        ),
        (TEN, {"now": UNTIL}, Status.ACCEPTED, None),
        (TEN, {"now": UNTIL + 1}, Status.REJECTED, Reason.TOO_LATE),
        (TEN, {"job": job(closed=True)}, Status.REJECTED, Reason.JOB_CLOSED),
        (TEN, {"job": job(paid=999_999)}, Status.ACCEPTED, None),
        (TEN, {"job": job(paid=1_000_000)}, Status.SETTLED, Reason.COVERED),
        (TEN, {"job": job(paid=1_000_000, closed=True)}, Status.SETTLED, Reason.COVERED),
        (
            TEN,
            {"job": job(paid=1_000_000), "enclave": None},
            Status.REJECTED,
            Reason.ENCLAVE_UNKNOWN,
        ),
        (
            TEN,
            {"job": job(paid=1_000_000), "enclave": enclave(revoked=True)},
            Status.SETTLED,
            Reason.COVERED,
        ),
        (TEN, {"settled": PAID, "enclave": enclave(revoked=True)}, Status.SETTLED, None),
        (TEN, {"settled": PAID, "enclave": None}, Status.REJECTED, Reason.ENCLAVE_UNKNOWN),
        (DONE, {"job": job(paid=1_000_000)}, Status.ACCEPTED, None),
        (
            DONE,
            {"job": job(paid=1_000_000, closed=True, output_digest=OUTPUT)},
            Status.SETTLED,
            Reason.COVERED,
        ),
        (
            DONE,
            {"job": job(paid=1_000_000, closed=True, output_digest=bytes(31) + b"\1")},
            Status.REJECTED,
            Reason.JOB_CLOSED,
        ),
        (
            receipt(TERMS, 10, complete=True, output_digest=bytes(32)),
            {"job": None},
            Status.REJECTED,
            Reason.OUTPUT_MISSING,
        ),
        (TEN, {"job": job(node_id=0)}, Status.WAITING, Reason.JOB_UNASSIGNED),
        (
            TEN,
            {"job": job(node_id=0), "enclave": None},
            Status.WAITING,
            Reason.JOB_UNASSIGNED,
        ),
        (TEN, {"job": job(node_id=0), "now": UNTIL}, Status.WAITING, Reason.JOB_UNASSIGNED),
        (TEN, {"job": job(node_id=0), "now": UNTIL + 1}, Status.REJECTED, Reason.TOO_LATE),
        (TEN, {"job": job(node_id=0, closed=True)}, Status.REJECTED, Reason.JOB_CLOSED),
        (TEN, {"job": job(node_id=2)}, Status.REJECTED, Reason.ENCLAVE_OF_OTHER_NODE),
        (
            TEN,
            {"job": job(node_id=2), "enclave": enclave(node_id=2)},
            Status.ACCEPTED,
            None,
        ),
        (TEN, {"job": None, "voided": True}, Status.REJECTED, Reason.JOB_VOIDED),
        (MUCH, {"job": job(paid=100_000_000)}, Status.SETTLED, Reason.COVERED),
        (MUCH, {"job": job(paid=100_000_000, funded=150_000_000)}, Status.ACCEPTED, None),
        (MUCH, {"job": job(paid=150_000_000, funded=150_000_000)}, Status.SETTLED, Reason.COVERED),
        (MUCH, {"job": job(paid=100_000_000), "settled": PAID}, Status.SETTLED, None),
        (
            MUCH,
            {"job": job(paid=100_000_000, funded=150_000_000), "settled": PAID},
            Status.ACCEPTED,
            None,
        ),
        (
            MUCH,
            {
                "job": job(paid=100_000_000, funded=150_000_000),
                "settled": PAID,
                "now": UNTIL + 1,
            },
            Status.SETTLED,
            None,
        ),
        (receipt(TERMS, 0), {}, Status.SETTLED, Reason.COVERED),
        (receipt(TERMS, 0, complete=True), {}, Status.ACCEPTED, None),
    ],
)
def test_verdict(it: Receipt, facts: dict[str, Any], status: Status, reason: Reason | None) -> None:
    given_facts = {"job": JOB, "enclave": ENCLAVE, "settled": None, "now": START, **facts}
    verdict = judge(it, **given_facts)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert (verdict.settled is not None) == (status is Status.SETTLED and reason is None)


receipts = st.lists(
    st.builds(
        lambda records, epochs, complete: receipt(TERMS, records, epochs, complete=complete),
        st.integers(0, 2_000),
        st.integers(0, 200),
        st.booleans(),
    ),
    max_size=8,
)


@given(receipts)
def test_what_is_due_pays_as_much_as_all_receipts_together(its: list[Receipt]) -> None:
    chosen = due(its, JOB)
    most = max((TERMS.earned(it.records, it.epochs) for it in its), default=0)
    assert max((TERMS.earned(it.records, it.epochs) for it in chosen), default=0) == most
    assert any(it.complete for it in its) == any(it.complete for it in chosen)
    assert [it.complete for it in chosen] == sorted(it.complete for it in chosen)
    assert len(chosen) <= 2


@given(receipts, st.randoms(use_true_random=False))
def test_what_is_due_depends_neither_on_order_nor_on_repetition(
    its: list[Receipt], random: Any
) -> None:
    shuffled = its + its
    random.shuffle(shuffled)
    assert due(shuffled, JOB) == due(its, JOB)


def test_an_outcome_rejects_exactly_where_waiting_cannot_help() -> None:
    assert {outcome: REFUSALS.get(outcome) for outcome in Outcome} == {
        Outcome.PAID: None,
        Outcome.NOTHING_NEW: None,
        Outcome.UNKNOWN_JOB: None,
        Outcome.NOT_ASSIGNED: None,
        Outcome.TOO_LATE: Reason.TOO_LATE,
        Outcome.ENCLAVE_REFUSED: Reason.ENCLAVE_REFUSED,
        Outcome.OUTPUT_MISSING: Reason.OUTPUT_MISSING,
        Outcome.MALFORMED: Reason.MALFORMED,
    }
