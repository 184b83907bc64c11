"""Which node a job goes to, and why not to the others. Pure: all facts are handed in.

Fair: of the nodes that fit, the one with the fewest unfinished jobs gets it, among equals the one
that was given work the longest ago, then the cheaper, then the lower id. What is said about nodes
tells a developer nothing of other developers' jobs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from oracle.clients.hub.errors import BudgetTooSmall, DeadlineTooSoon, NoNodeAvailable, in_usdc
from settlement.hub.market import QuoteRequest
from settlement.hub.messages import DatasetProfile, JobRequest, NodeQuote, OutputPolicy, Route

NOT_ATTESTED = "enclave_missing"
"""The oracle's name for a node of which it knows no enclave."""


@dataclass(frozen=True)
class Standing:
    """Whether a node may get work: up to `until` (Unix seconds), or why not, in the oracle's words.

    With `until` there are no reasons.
    """

    until: int | None
    reasons: tuple[str, ...]

    @property
    def routable(self) -> bool:
        """Whether enclave and TPM both count now."""
        return self.until is not None


UNKNOWN = Standing(None, (NOT_ATTESTED,))
"""A node that the oracle knows nothing about."""


@dataclass(frozen=True)
class Work:
    """What a node has to do: its unfinished jobs, and when it was last given one.

    `absent_since` is when it was last heard of, where that is too long ago; `full` that its queue
    takes no more. Times are Unix seconds.
    """

    unfinished: int = 0
    assigned_at: int = 0
    absent_since: int | None = None
    full: bool = False


IDLE = Work()


@dataclass(frozen=True)
class Wish:
    """What a job needs of a node."""

    modality: str
    epochs: int
    min_records: int = 0
    columns: frozenset[str] = frozenset()
    budget: int | None = None
    policy: OutputPolicy | None = None
    node_id: int | None = None
    avoid: int | None = None
    """The node that the job is taken away from."""

    @classmethod
    def of(cls, request: JobRequest | QuoteRequest) -> Self:
        """What this request needs."""
        return cls(
            modality=request.modality,
            epochs=request.epochs,
            min_records=request.min_records,
            columns=frozenset(request.columns),
            budget=request.budget,
            policy=request.policy,
            node_id=request.node_id if isinstance(request, JobRequest) else None,
        )


def check_deadline(deadline: int, *, now: int, shortest: int) -> None:
    """Pass a deadline at least `shortest` seconds after `now` (Unix seconds).

    Raises:
        DeadlineTooSoon: for any other.
    """
    if deadline < now + shortest:
        raise DeadlineTooSoon(deadline, now + shortest)


def unfitness(
    wish: Wish, profile: DatasetProfile, standing: Standing, work: Work = IDLE
) -> tuple[str, ...]:
    """Everything but the price that keeps the job from this profile's node."""
    reasons = []
    if wish.node_id not in (None, profile.node_id):
        reasons.append(f"node {wish.node_id} was asked for")
    if wish.avoid == profile.node_id:
        reasons.append("the job is taken away from it")
    if profile.modality != wish.modality:
        reasons.append(f"its modality is {profile.modality}, not {wish.modality}")
    if profile.record_count < wish.min_records:
        reasons.append(f"it has {profile.record_count} records, not {wish.min_records}")
    if wish.policy is not None and profile.record_count < wish.policy.min_records:
        reasons.append(
            f"the policy wants an output to rest on {wish.policy.min_records} records, "
            f"it has {profile.record_count}"
        )
    if missing := sorted(wish.columns - profile.columns):
        reasons.append(f"its schema lacks {', '.join(missing)}")
    if not standing.routable:
        reasons.append(f"its attestation is not valid now ({', '.join(standing.reasons)})")
    if work.absent_since is not None:
        reasons.append(f"it was last heard of at {work.absent_since}")
    if work.full:
        reasons.append("its queue is full")
    return tuple(reasons)


def price(wish: Wish, profile: DatasetProfile) -> tuple[str, ...]:
    """Why the budget does not do; nothing when it does, or none was named."""
    cost = profile.worst_case(wish.epochs)
    if wish.budget is None or cost <= wish.budget:
        return ()
    return (f"it can cost up to {in_usdc(cost)}",)


def route(
    wish: Wish,
    profiles: Iterable[DatasetProfile],
    standings: Mapping[int, Standing],
    work: Mapping[int, Work],
) -> tuple[DatasetProfile, Route]:
    """The one profile whose node gets the job, with the reasons for it and about every node.

    `standings` is what the oracle says of each node that it knows, `work` what the hub does.

    Raises:
        BudgetTooSmall: when nodes fit, but the cheapest one's worst case is above the budget.
        NoNodeAvailable: when none fits.
    """
    quotes: list[NodeQuote] = []
    chosen: list[tuple[tuple[int, int, int, int], DatasetProfile]] = []
    too_dear: list[int] = []
    for profile in sorted(profiles, key=lambda profile: profile.node_id):
        cost, node_id = profile.worst_case(wish.epochs), profile.node_id
        doing = work.get(node_id, IDLE)
        why = unfitness(wish, profile, standings.get(node_id, UNKNOWN), doing)
        if not why and (why := price(wish, profile)):
            too_dear.append(cost)
        elif not why:
            chosen.append(((doing.unfinished, doing.assigned_at, cost, node_id), profile))
        quotes.append(NodeQuote(node_id=node_id, worst_case=cost, why=why))
    if not chosen:
        if too_dear:
            raise BudgetTooSmall(min(too_dear), wish.budget or 0)
        raise NoNodeAvailable(tuple(quotes))
    (_, _, cost, node_id), profile = min(chosen, key=lambda choice: choice[0])
    why = (
        f"modality {profile.modality} with {profile.record_count} records",
        "its attestation is valid now",
        f"it can cost up to {in_usdc(cost)}, within the budget",
        f"its turn: of {len(chosen)} fitting nodes it has the least to do, or waits longest",
    )
    return profile, Route(node_id=node_id, why=why, quotes=tuple(quotes))
