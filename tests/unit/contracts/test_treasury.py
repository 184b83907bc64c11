"""A hospital moves to another treasury in two steps, and takes its past earnings with it not."""

import pytest
from world import World, actor, reverts

from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

RECORD = 100_000
NEW = actor("hospital 2").address


def propose(world: World, treasury: str = NEW, name: str = "hospital") -> None:
    world.nodes.propose_treasury(1, treasury, sender=actor(name).address)


def accept(world: World, name: str = "hospital 2") -> None:
    world.nodes.accept_treasury(1, sender=actor(name).address)


def earn(world: World, salt: int) -> None:
    terms = world.terms(salt)
    world.open(terms)
    world.settle(world.claim(terms, 100, complete=True))


def test_treasury_changes_when_the_new_one_accepts(world: World) -> None:
    propose(world)
    assert world.events(world.nodes) == [("TreasuryProposed", {"node_id": 1, "treasury": NEW})]
    assert world.nodes.proposed_treasury(1) == NEW
    assert world.nodes.node(1)[1] == actor("hospital").address
    accept(world)
    assert world.events(world.nodes) == [
        (
            "TreasuryChanged",
            {
                "node_id": 1,
                "previous_treasury": actor("hospital").address,
                "new_treasury": NEW,
            },
        )
    ]
    assert world.nodes.proposed_treasury(1) == ZERO_ADDRESS
    assert world.nodes.node(1)[1] == NEW == world.nodes.payees(1)[0]
    assert tuple(world.nodes.payees(1)[4:]) == (2_000, 500, 500)
    assert world.nodes.is_active(1)


def test_past_earnings_stay_with_the_treasury_of_then(world: World) -> None:
    earn(world, 1)
    propose(world)
    accept(world)
    assert [name for name, _ in world.events(world.nodes)] == ["Distributed", "TreasuryChanged"]
    earn(world, 2)
    world.distribute()
    assert (world.balance("hospital"), world.balance("hospital 2")) == (70 * RECORD, 70 * RECORD)


@pytest.mark.parametrize("name", ["guardian", "registrar", "node owner", "hospital 2", "thief"])
def test_nobody_but_the_present_treasury_proposes(world: World, name: str) -> None:
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        propose(world, actor(name).address, name)
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        world.govern(world.nodes, "propose_treasury", 1, NEW)
    assert world.nodes.proposed_treasury(1) == ZERO_ADDRESS


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_unregistered_node_has_no_hospital(world: World, node_id: int) -> None:
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        world.nodes.propose_treasury(node_id, NEW, sender=actor("hospital").address)
    with reverts(Revert.NODES_NODE_IS_NOT_REGISTERED):
        world.nodes.accept_treasury(node_id, sender=NEW)


@pytest.mark.parametrize("name", ["hospital", "thief", "guardian", "node owner"])
def test_nobody_but_the_proposed_treasury_accepts(world: World, name: str) -> None:
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        accept(world)
    propose(world)
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        accept(world, name)
    assert world.nodes.node(1)[1] == actor("hospital").address


def test_proposal_can_be_taken_back(world: World) -> None:
    propose(world)
    propose(world, ZERO_ADDRESS)
    assert world.events(world.nodes) == [
        ("TreasuryProposed", {"node_id": 1, "treasury": ZERO_ADDRESS})
    ]
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        accept(world)


def test_later_proposal_replaces_the_one_before(world: World) -> None:
    propose(world)
    propose(world, actor("hospital 3").address)
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        accept(world)
    accept(world, "hospital 3")
    assert world.nodes.node(1)[1] == actor("hospital 3").address


def test_acceptance_counts_once_and_the_former_treasury_has_no_say(world: World) -> None:
    propose(world)
    accept(world)
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        accept(world)
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        propose(world)
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        world.nodes.retire(1, sender=actor("hospital").address)
    propose(world, actor("hospital").address, "hospital 2")
    accept(world, "hospital")
    assert world.nodes.node(1)[1] == actor("hospital").address


def test_proposal_is_of_one_node(world: World) -> None:
    second = world.register_node()
    propose(world)
    with reverts(Revert.NODES_CALLER_IS_NOT_PROPOSED):
        world.nodes.accept_treasury(second, sender=NEW)


def test_suspended_and_retired_nodes_move_their_treasury_too(world: World) -> None:
    earn(world, 1)
    world.nodes.suspend(1, sender=actor("guardian").address)
    propose(world)
    accept(world)
    assert world.nodes.node(1)[0] == 2
    world.nodes.retire(1, sender=NEW)
    propose(world, actor("hospital 3").address, "hospital 2")
    accept(world, "hospital 3")
    assert tuple(world.nodes.node(1)[:2]) == (3, actor("hospital 3").address)
