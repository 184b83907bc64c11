"""Which node a job goes to, and why not to the others. Pure: all facts are handed in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oracle.clients.hub.errors import BudgetTooSmall, DeadlineTooSoon, NoNodeAvailable, in_usdc
from oracle.clients.hub.messages import DatasetProfile, JobRequest, NodeQuote, Route

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


def check_deadline(deadline: int, *, now: int, shortest: int) -> None:
    """Pass a deadline at least `shortest` seconds after `now` (Unix seconds).

    Raises:
        DeadlineTooSoon: for any other.
    """
    if deadline < now + shortest:
        raise DeadlineTooSoon(deadline, now + shortest)


def unfitness(request: JobRequest, profile: DatasetProfile, standing: Standing) -> tuple[str, ...]:
    """Everything but the price that keeps the job from this profile's node."""
    reasons = []
    if profile.modality != request.modality:
        reasons.append(f"its modality is {profile.modality}, not {request.modality}")
    if profile.record_count < request.min_records:
        reasons.append(f"it has {profile.record_count} records, not {request.min_records}")
    if profile.record_count < request.policy.min_records:
        reasons.append(
            f"the policy wants an output to rest on {request.policy.min_records} records, "
            f"it has {profile.record_count}"
        )
    if not standing.routable:
        reasons.append(f"its attestation is not valid now ({', '.join(standing.reasons)})")
    return tuple(reasons)


def route(
    request: JobRequest,
    profiles: Iterable[DatasetProfile],
    standings: Mapping[int, Standing],
    load: Mapping[int, int],
) -> tuple[DatasetProfile, Route]:
    """The one profile whose node gets the job, with the reasons for it and about every node.

    Of the nodes that fit, the one with the fewest unfinished jobs (`load`) is taken, then the
    cheaper, then the lower id. `standings` is what the oracle says of each node that it knows.

    Raises:
        BudgetTooSmall: when nodes fit, but the cheapest one's worst case is above the budget.
        NoNodeAvailable: when none fits.
    """
    quotes: list[NodeQuote] = []
    chosen: list[tuple[int, int, int, DatasetProfile]] = []
    too_dear: list[int] = []
    for profile in sorted(profiles, key=lambda profile: profile.node_id):
        cost = profile.worst_case(request.epochs)
        why = unfitness(request, profile, standings.get(profile.node_id, UNKNOWN))
        if not why and cost > request.budget:
            too_dear.append(cost)
            why = (f"it can cost up to {in_usdc(cost)}",)
        elif not why:
            chosen.append((load.get(profile.node_id, 0), cost, profile.node_id, profile))
        quotes.append(NodeQuote(node_id=profile.node_id, worst_case=cost, why=why))
    if not chosen:
        if too_dear:
            raise BudgetTooSmall(min(too_dear), request.budget)
        raise NoNodeAvailable(tuple(quotes))
    jobs, cost, node_id, profile = min(chosen, key=lambda choice: choice[:3])
    why = (
        f"modality {profile.modality} with {profile.record_count} records",
        "its attestation is valid now",
        f"it can cost up to {in_usdc(cost)}, within the budget",
        f"it has {jobs} unfinished jobs, the fewest of {len(chosen)} fitting nodes",
    )
    return profile, Route(node_id=node_id, why=why, quotes=tuple(quotes))
