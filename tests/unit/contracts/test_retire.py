"""A node ends for good: no new jobs, its machine never again, and what it earned is paid."""

import json

import pytest
from eth_utils import keccak
from world import World, actor, reverts

from settlement.contracts import Outcome
from settlement.reverts import Revert

RECORD = 100_000
RETIRED = 3


def retire(world: World, name: str = "hospital", node_id: int = 1) -> None:
    world.nodes.retire(node_id, sender=actor(name).address)


def test_hospital_ends_its_node(world: World) -> None:
    retire(world)
    assert world.events(world.nodes) == [("NodeRetired", {"node_id": 1})]
    assert world.nodes.node(1)[0] == RETIRED
    assert not world.nodes.is_active(1)
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.open(world.terms())


def test_owner_of_the_registry_ends_a_node(world: World) -> None:
    world.govern(world.nodes, "retire", 1)
    assert world.nodes.node(1)[0] == RETIRED


@pytest.mark.parametrize(
    "name", ["node owner", "onboarder", "guardian", "registrar", "protocol", "thief"]
)
def test_nobody_else_ends_a_node(world: World, name: str) -> None:
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        retire(world, name)
    assert world.nodes.is_active(1)


def test_hospital_of_another_node_has_no_say(world: World) -> None:
    second = world.register_node(hospital="hospital 2")
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL):
        retire(world, "hospital 2")
    retire(world, "hospital 2", second)
    assert world.nodes.is_active(1)


def test_end_is_final(world: World) -> None:
    retire(world)
    with reverts(Revert.NODES_NODE_IS_RETIRED):
        retire(world)
    with reverts(Revert.NODES_NODE_IS_RETIRED):
        world.nodes.suspend(1, sender=actor("guardian").address)
    with reverts(Revert.NODES_NODE_IS_RETIRED):
        world.govern(world.nodes, "resume", 1)
    assert world.nodes.node(1)[0] == RETIRED


def test_machine_of_a_retired_node_stays_taken(world: World) -> None:
    hardware = world.nodes.node(1)[3]
    retire(world)
    people = [actor(name).address for name in ("node owner", "hospital", "onboarder")]
    with reverts(Revert.NODES_HARDWARE_ALREADY_REGISTERED):
        world.nodes.register_node(*people, hardware, sender=actor("registrar").address)
    assert hardware == keccak(text="hardware 0")
    assert world.nodes.node_of_hardware(hardware) == 1


def test_suspended_node_can_be_ended(world: World) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    retire(world)
    assert world.nodes.node(1)[0] == RETIRED


def test_work_of_a_retired_node_is_paid_split_and_withdrawn(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    retire(world)
    assert world.settle_one(world.claim(terms, 100, complete=True)) == Outcome.PAID
    assert world.distribute() == 100 * RECORD
    assert world.vault.withdraw(sender=actor("hospital").address) == 70 * RECORD


def test_token_of_a_retired_node_still_moves(world: World) -> None:
    retire(world)
    owner = actor("node owner").address
    world.nodes.transferFrom(owner, actor("buyer").address, 1, sender=owner)
    assert world.nodes.payees(1)[1] == actor("buyer").address


# the token's own words


def metadata(world: World, node_id: int) -> dict[str, object]:
    uri = world.nodes.tokenURI(node_id)
    head, body = uri.split(",", 1)
    assert head == "data:application/json;utf8"
    document: dict[str, object] = json.loads(body)
    return document


def test_token_uri_is_json_with_the_nodes_status_and_share(world: World) -> None:
    def expected(status: str, share: str) -> dict[str, object]:
        return {
            "name": "Rapha Node 1",
            "description": "A hospital machine that trains models on records which never leave it.",
            "attributes": [
                {"trait_type": "status", "value": status},
                {"trait_type": "node owner share, basis points", "value": json.loads(share)},
            ],
        }

    assert metadata(world, 1) == expected("active", "2000")
    world.nodes.suspend(1, sender=actor("guardian").address)
    assert metadata(world, 1) == expected("suspended", "2000")
    world.govern(world.nodes, "set_shares", 1, 0, 0, 0)
    assert metadata(world, 1) == expected("suspended", "0")
    world.govern(world.nodes, "resume", 1)
    assert metadata(world, 1) == expected("active", "0")
    retire(world)
    assert metadata(world, 1) == expected("retired", "0")


def test_token_uri_names_its_own_node(world: World) -> None:
    second = world.register_node(hospital="hospital 2")
    assert metadata(world, second)["name"] == "Rapha Node 2"


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_node_that_does_not_exist_has_no_token_uri(world: World, node_id: int) -> None:
    with reverts(Revert.ERC721_UNKNOWN_NODE):
        world.nodes.tokenURI(node_id)
