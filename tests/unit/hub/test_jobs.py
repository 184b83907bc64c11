"""How a job follows its escrow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.clients.hub.jobs import (
    CANCELLED,
    CLOSED,
    EXPIRED,
    FINISHED,
    TOO_LATE,
    Escrow,
    advance,
    follow,
)
from settlement.hub.messages import Failure, JobState, Progress

Q, F, R, D, X = (
    JobState.QUOTED,
    JobState.FUNDED,
    JobState.RUNNING,
    JobState.DELIVERED,
    JobState.FAILED,
)
DEADLINE = 1_000


@pytest.mark.parametrize(
    ("state", "escrow", "now", "expected"),
    [
        (Q, Escrow.UNKNOWN, 1_000, (Q, None)),
        (Q, Escrow.UNKNOWN, 1_001, (X, EXPIRED)),
        (Q, Escrow.OPEN, 1_000, (F, None)),
        (Q, Escrow.OPEN, 1_001, (X, TOO_LATE)),
        (Q, Escrow.CANCELLING, 0, (X, CANCELLED)),
        (Q, Escrow.CLOSED, 0, (X, CLOSED)),
        (F, Escrow.UNKNOWN, 0, (Q, None)),
        (F, Escrow.OPEN, 0, (F, None)),
        (F, Escrow.OPEN, 1_001, (X, TOO_LATE)),
        (F, Escrow.CANCELLING, 0, (X, CANCELLED)),
        (F, Escrow.CLOSED, 0, (X, CLOSED)),
        (R, Escrow.UNKNOWN, 0, (R, None)),
        (R, Escrow.UNKNOWN, 1_001, (X, EXPIRED)),
        (R, Escrow.OPEN, 1_001, (R, None)),
        (R, Escrow.CANCELLING, 1_001, (R, None)),
        (R, Escrow.COMPLETED, 1_001, (R, None)),
        (R, Escrow.CLOSED, 0, (X, CLOSED)),
    ],
)
def test_state_follows_escrow_and_time(
    state: JobState, escrow: Escrow, now: int, expected: tuple[JobState, Failure | None]
) -> None:
    assert follow(state, escrow, deadline=DEADLINE, now=now) == expected


@given(st.sampled_from(Escrow), st.sampled_from(sorted(FINISHED)), st.integers(0, 2_000))
def test_what_has_ended_stays(escrow: Escrow, state: JobState, now: int) -> None:
    assert follow(state, escrow, deadline=DEADLINE, now=now) == (state, None)


@given(st.sampled_from(JobState), st.sampled_from(Escrow), st.integers(0, 2_000))
def test_a_failure_is_told_exactly_when_it_ends_the_job(
    state: JobState, escrow: Escrow, now: int
) -> None:
    after, failure = follow(state, escrow, deadline=DEADLINE, now=now)
    assert (failure is not None) == (after is X and state is not X)


@pytest.mark.parametrize(
    ("records", "epochs", "kept"), [(5, 2, True), (6, 2, True), (4, 3, False), (9, 1, False)]
)
def test_progress_never_goes_back(records: int, epochs: int, kept: bool) -> None:
    known = Progress(records=5, epochs=2, epochs_total=9)
    told = Progress(records=records, epochs=epochs, epochs_total=9, metrics={"loss": 0.5})
    assert advance(known, told) is (told if kept else known)
    assert advance(None, told) is told
