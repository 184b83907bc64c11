"""The vault keeps its own word for whether a node takes new jobs, and the node registry says it."""

from collections.abc import Callable

import pytest
from world import World, actor, reverts

from settlement.contracts import JobState, Outcome
from settlement.reverts import Revert

GUARDIAN, HOSPITAL = actor("guardian").address, actor("hospital").address

# what happens to node 1, and whether it takes new jobs afterwards
HISTORIES: dict[str, tuple[list[Callable[[World], None]], bool]] = {
    "registered": ([], True),
    "suspended": ([lambda w: w.nodes.suspend(1, sender=GUARDIAN)], False),
    "suspended twice": ([lambda w: w.nodes.suspend(1, sender=GUARDIAN)] * 2, False),
    "resumed": (
        [
            lambda w: w.nodes.suspend(1, sender=GUARDIAN),
            lambda w: w.govern(w.nodes, "resume", 1),
        ],
        True,
    ),
    "retired": ([lambda w: w.nodes.retire(1, sender=HOSPITAL)], False),
    "suspended and retired": (
        [
            lambda w: w.nodes.suspend(1, sender=GUARDIAN),
            lambda w: w.nodes.retire(1, sender=HOSPITAL),
        ],
        False,
    ),
    "shares changed while suspended": (
        [
            lambda w: w.nodes.suspend(1, sender=GUARDIAN),
            lambda w: w.govern(w.nodes, "set_shares", 1, 0, 0, 0),
        ],
        False,
    ),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_registry_and_vault_agree_whatever_happens_to_a_node(world: World, history: str) -> None:
    steps, takes_jobs = HISTORIES[history]
    for step in steps:
        step(world)
    second = world.register_node(hospital="hospital 2")
    assert world.nodes.is_active(1) is takes_jobs
    terms = world.terms()
    if takes_jobs:
        world.open(terms)
        assert world.job(terms).state == JobState.ASSIGNED
    else:
        with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
            world.open(terms)
    world.open(world.terms(1, node_id=second))


@pytest.mark.parametrize("name", ["registrar", "guardian", "hospital", "node owner", "thief"])
@pytest.mark.parametrize("active", [False, True])
def test_nobody_but_the_registry_says_so(world: World, name: str, active: bool) -> None:
    with reverts(Revert.VAULT_CALLER_IS_NOT_REGISTRY):
        world.vault.set_active(1, active, sender=actor(name).address)
    with reverts(Revert.VAULT_CALLER_IS_NOT_REGISTRY):
        world.govern(world.vault, "set_active", 7, active)
    world.open(world.terms())


def test_registry_of_another_vault_has_no_say(world: World) -> None:
    other = world.create_vault()
    other.register_node()
    other.nodes.suspend(1, sender=GUARDIAN)
    world.open(world.terms())
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        other.open_many(other.terms())


def test_jobs_that_a_stopped_node_has_are_untouched(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    world.nodes.suspend(1, sender=GUARDIAN)
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.settle_one(world.claim(terms, 10)) == Outcome.PAID
    world.top_up(terms, 5)
    assert world.settle_one(world.claim(terms, 20, complete=True)) == Outcome.PAID
