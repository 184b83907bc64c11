"""A job and how its state follows from what the oracle says of its escrow. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum

from settlement.hub.messages import (
    ArtifactName,
    Failure,
    JobAssignment,
    JobState,
    JobView,
    OutputPolicy,
    Progress,
    Route,
)
from settlement.models import JobTerms
from settlement.types import Bytes32, Frozen, UInt64

FINISHED = frozenset({JobState.DELIVERED, JobState.FAILED})
EXPIRED = Failure(code="QuoteExpired", detail="the budget was not in escrow before the deadline")
TOO_LATE = Failure(code="DeadlinePassed", detail="the node did not start before the deadline")
CANCELLED = Failure(code="EscrowCancelled", detail="the payer ended it before the node started")
CLOSED = Failure(code="EscrowClosed", detail="the escrow was closed before the work was complete")


class Task(Frozen):
    """What of a request the node needs, besides terms and bundle."""

    policy: OutputPolicy
    epochs: UInt64
    result_key: Bytes32
    framework: str | None = None


@dataclass(frozen=True)
class Kept:
    """An artifact as kept: SHA-256 (hex) and bytes."""

    name: ArtifactName
    sha256: str
    size: int


class Escrow(StrEnum):
    """What the chain says of a job, as told by the oracle."""

    UNKNOWN = "UNKNOWN"
    """Not in escrow, or waiting for a node: there is nothing to work for yet."""
    OPEN = "OPEN"
    CANCELLING = "CANCELLING"
    """The payer ends it: what a node has begun is still paid for a while, nothing new begins."""
    COMPLETED = "COMPLETED"
    """Closed by a completing receipt."""
    CLOSED = "CLOSED"
    """Closed without one: refunded or cancelled."""


@dataclass(frozen=True)
class Job:
    """A job as stored; `tenant` is the developer whose it is.

    `wish` is the request it came by, as JSON without its bundle; None of jobs from before that was
    kept. `replaces` is the job that this one takes the place of.
    """

    job_id: bytes
    tenant: str
    terms: JobTerms
    task: Task
    bundle_digest: bytes
    state: JobState = JobState.QUOTED
    progress: Progress | None = None
    failure: Failure | None = None
    node_id: int = 0
    route_json: str | None = field(default=None, compare=False)
    wish: str | None = field(default=None, compare=False)
    replaces: bytes | None = None
    created_at: int = field(default=0, compare=False)
    checked_at: int = field(default=0, compare=False)
    started_at: int | None = field(default=None, compare=False)
    ended_at: int | None = field(default=None, compare=False)

    @property
    def route(self) -> Route | None:
        """How it was routed; read when asked for, since it speaks of every node."""
        return Route.model_validate_json(self.route_json) if self.route_json else None

    @property
    def view(self) -> JobView:
        """What its developer and its node may see."""
        return JobView(
            job_id=self.job_id,
            terms=self.terms,
            state=self.state,
            progress=self.progress,
            failure=self.failure,
        )

    def assignment(self, bundle: bytes) -> JobAssignment:
        """What its node gets."""
        return JobAssignment(
            job_id=self.job_id,
            terms=self.terms,
            bundle=bundle,
            policy=self.task.policy,
            epochs=self.task.epochs,
            result_key=self.task.result_key,
        )


def follow(
    state: JobState, escrow: Escrow, *, deadline: int, now: int
) -> tuple[JobState, Failure | None]:
    """The state that a job is in, given its escrow; a failure when that ends it.

    A node may deliver a running job until its escrow closes, and after that too if it closed by a
    completing receipt: that one was paid for.
    """
    if state in FINISHED:
        return state, None
    if escrow is Escrow.UNKNOWN:
        if now > deadline:
            return JobState.FAILED, EXPIRED
        # A reorganisation, or an oracle that lags behind, can take an escrow back.
        return (JobState.RUNNING if state is JobState.RUNNING else JobState.QUOTED), None
    if state is JobState.RUNNING:
        return (JobState.FAILED, CLOSED) if escrow is Escrow.CLOSED else (state, None)
    if escrow is not Escrow.OPEN:
        return JobState.FAILED, CANCELLED if escrow is Escrow.CANCELLING else CLOSED
    return (JobState.FAILED, TOO_LATE) if now > deadline else (JobState.FUNDED, None)


def advance(known: Progress | None, told: Progress) -> Progress:
    """The further of two progresses: counters that go backwards are ignored."""
    if known and (told.records < known.records or told.epochs < known.epochs):
        return known
    return told
