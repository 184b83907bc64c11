"""The table of a job's moves is the vault's: every function on a job in every state."""

from collections.abc import Callable
from itertools import product

import boa
from boa import BoaError
from world import DAY, World, actor

from settlement.contracts import JobState, order
from settlement.models import JobTerms
from settlement.states import JOB_MOVES

NAMES = {move.event for move in JOB_MOVES}

ACTIONS: dict[str, Callable[[World, JobTerms], object]] = {
    "open": lambda world, terms: world.open(terms),
    "sponsor": lambda world, terms: world.sponsor(terms),
    "void": lambda world, terms: world.vault.void_job(order(terms), sender=terms.payer),
    "assign": lambda world, terms: world.assign(terms),
    "top up": lambda world, terms: world.top_up(terms, 1_000_000),
    "settle": lambda world, terms: world.settle_one(world.claim(terms, 10)),
    "settle more": lambda world, terms: world.settle_one(world.claim(terms, 20)),
    "complete": lambda world, terms: world.settle_one(world.claim(terms, 30, complete=True)),
    "dispute": lambda world, terms: world.dispute(terms),
    "cancel": lambda world, terms: world.cancel(terms),
    "refund": lambda world, terms: world.refund(terms),
}
BEFORE: dict[JobState, tuple[tuple[str, ...], ...]] = {
    JobState.UNKNOWN: ((),),
    JobState.OPEN: (("open",),),
    JobState.ASSIGNED: (("open",), ("open", "settle"), ("open", "assign")),
    JobState.CANCELLING: (("open", "cancel"), ("open", "settle", "cancel")),
    JobState.CLOSED: (("void",), ("open", "complete"), ("open", "cancel")),
}
"""Ways into each state; some need a job with a node, some one without."""


def state_of(world: World, terms: JobTerms) -> JobState:
    return JobState(world.vault.job(world.job_id(terms))[0])


def moves_by(world: World, terms: JobTerms, action: str) -> set[tuple[str, JobState, JobState]]:
    """What an action does to a job: event, state before, state after. Nothing where it reverts."""
    before = state_of(world, terms)
    try:
        ACTIONS[action](world, terms)
    except BoaError:
        names: list[str] = []
    else:
        names = [name for name, _ in world.events(world.vault) if name in NAMES]
    after = state_of(world, terms)
    if not names:
        assert after == before, f"{action} moves a job in {before.name} and logs nothing"
        return set()
    # of two events in a transaction, opening comes first and closing last
    between = after if names[0] == "JobOpened" else before
    states = [before, *[between] * (len(names) - 1), after]
    return {(name, *states[i : i + 2]) for i, name in enumerate(names)}  # type: ignore[misc]


def test_vault_makes_the_moves_of_the_table_and_no_others(windowed: World) -> None:
    world, seen = windowed, set()
    world.fund(actor("sponsor"))
    reached = set()
    for state, ways in BEFORE.items():
        for way, node_id, late in product(ways, (0, 1), (0, 5 * DAY)):
            terms = world.terms(node_id=node_id)
            with boa.env.anchor():
                for step in way:
                    seen |= moves_by(world, terms, step)
                if state_of(world, terms) != state:
                    continue  # this way is of a job with a node, or of one without
                reached.add(state)
                world.pass_time(late)
                for action in ACTIONS.keys() - {"settle"}:
                    with boa.env.anchor():
                        seen |= moves_by(world, terms, action)
    assert reached == set(JobState)
    assert seen == {(move.event, move.before, move.after) for move in JOB_MOVES}
