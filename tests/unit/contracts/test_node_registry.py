"""Nodes as ERC-721 tokens whose past earnings do not travel with them."""

from collections.abc import Callable
from typing import Any

import pytest
from eth_utils import keccak
from world import World, actor, deploy, reverts

from settlement.models import JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

HARDWARE = keccak(text="another machine")
RECORD = 100_000


def register(world: World, sender: str = "registrar", **changes: Any) -> int:
    people = {
        "node_owner": actor("node owner").address,
        "hospital": actor("hospital").address,
        "onboarder": actor("onboarder").address,
        "hardware_hash": HARDWARE,
    }
    values = {**people, **changes}.values()
    return int(world.nodes.register_node(*values, sender=actor(sender).address))


def transfer(world: World, to: str, sender: str = "node owner", source: str = "node owner") -> None:
    world.nodes.transferFrom(actor(source).address, to, 1, sender=actor(sender).address)


@pytest.fixture
def earned(world: World) -> JobTerms:
    """A job on node 1 that has earned 10 USDC, not yet split."""
    terms = world.terms()
    world.open(terms)
    world.settle(world.claim(terms, 100))
    return terms


# registering


def test_registered_node_is_active_and_its_owners_token(world: World) -> None:
    node = register(world)
    names = ("node_owner", "hospital", "onboarder")
    people = {name: actor(name.replace("_", " ")).address for name in names}
    assert world.events(world.nodes) == [
        ("Transfer", {"sender": ZERO_ADDRESS, "receiver": people["node_owner"], "token_id": 2}),
        ("NodeRegistered", {"node_id": 2, **people, "hardware_hash": HARDWARE}),
    ]
    assert node == 2 == world.nodes.node_count() == world.nodes.node_of_hardware(HARDWARE)
    assert world.nodes.ownerOf(2) == people["node_owner"]
    assert world.nodes.is_active(2)
    assert tuple(world.nodes.node(2)) == (
        people["hospital"],
        people["onboarder"],
        HARDWARE,
        False,
    )
    assert tuple(world.nodes.payees(2)) == (
        people["hospital"],
        people["node_owner"],
        people["onboarder"],
        actor("protocol").address,
        2_000,
        500,
        500,
    )


def test_one_machine_is_one_node(world: World) -> None:
    register(world)
    with reverts(Revert.NODES_HARDWARE_ALREADY_REGISTERED):
        register(world, hospital=actor("hospital 2").address)
    with reverts(Revert.NODES_HARDWARE_ALREADY_REGISTERED):
        register(world, hardware_hash=keccak(text="hardware 0"))


@pytest.mark.parametrize("payee", ["node_owner", "hospital", "onboarder"])
def test_zero_is_no_payee(world: World, payee: str) -> None:
    with reverts(Revert.NODES_PAYEE_IS_ZERO):
        register(world, **{payee: ZERO_ADDRESS})


def test_zero_is_no_hardware(world: World) -> None:
    with reverts(Revert.NODES_HARDWARE_HASH_IS_ZERO):
        register(world, hardware_hash=bytes(32))


@pytest.mark.parametrize("name", ["hospital", "node owner", "guardian", "deployer", "thief"])
def test_stranger_registers_no_node(world: World, name: str) -> None:
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_REGISTRAR):
        register(world, sender=name)
    assert world.nodes.node_count() == 1


def test_owner_replaces_the_registrar(world: World) -> None:
    world.govern(world.nodes, "set_registrar", actor("registrar 2").address)
    old, new = actor("registrar").address, actor("registrar 2").address
    assert world.events(world.nodes) == [
        ("RegistrarChanged", {"previous_registrar": old, "new_registrar": new})
    ]
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_REGISTRAR):
        register(world)
    assert register(world, sender="registrar 2") == 2


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_unregistered_node_has_no_data(world: World, node_id: int) -> None:
    assert not world.nodes.is_active(node_id)
    guardian = actor("guardian").address
    calls: list[Callable[[], Any]] = [
        lambda: world.nodes.node(node_id),
        lambda: world.nodes.payees(node_id),
        lambda: world.nodes.suspend(node_id, sender=guardian),
        lambda: world.govern(world.nodes, "resume", node_id),
    ]
    for call in calls:
        with reverts(Revert.NODES_NODE_IS_NOT_REGISTERED):
            call()


# suspension


def test_suspended_node_is_not_active_until_the_owner_resumes_it(world: World) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    assert world.events(world.nodes) == [("NodeSuspended", {"node_id": 1})]
    assert not world.nodes.is_active(1)
    assert world.nodes.node(1)[3]
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        world.nodes.resume(1, sender=actor("guardian").address)
    world.govern(world.nodes, "resume", 1)
    assert world.events(world.nodes) == [("NodeResumed", {"node_id": 1})]
    assert world.nodes.is_active(1)


def test_suspended_nodes_earned_receipts_are_paid_split_and_withdrawn(
    world: World, earned: JobTerms
) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    world.settle(world.claim(earned, 200, complete=True))
    assert world.vault.distribute(1, sender=actor("anyone").address) == 200 * RECORD
    assert world.vault.withdraw(sender=actor("hospital").address) == 140 * RECORD


# transfers


def test_transfer_splits_first_what_was_earned_before(world: World, earned: JobTerms) -> None:
    transfer(world, actor("buyer").address)
    events = world.events(world.nodes)
    assert [name for name, _ in events] == ["Distributed", "Transfer"]
    assert events[0][1]["node_owner"] == actor("node owner").address
    assert world.nodes.ownerOf(1) == actor("buyer").address
    assert world.balance("node owner") == 20 * RECORD
    assert (world.balance("buyer"), world.vault.earnings(1)) == (0, 0)
    world.settle(world.claim(earned, 150))
    world.vault.distribute(1, sender=actor("anyone").address)
    assert (world.balance("node owner"), world.balance("buyer")) == (20 * RECORD, 10 * RECORD)
    assert world.balance("hospital") == 105 * RECORD


def test_transfer_without_earnings_goes_through(world: World) -> None:
    transfer(world, actor("buyer").address)
    assert [name for name, _ in world.events(world.nodes)] == ["Transfer"]
    assert world.nodes.ownerOf(1) == actor("buyer").address


def test_approved_account_may_transfer_and_the_checkpoint_holds(
    world: World, earned: JobTerms
) -> None:
    world.nodes.approve(actor("market").address, 1, sender=actor("node owner").address)
    transfer(world, actor("buyer").address, sender="market")
    assert world.balance("node owner") == 20 * RECORD


@pytest.mark.parametrize("name", ["thief", "hospital", "guardian", "registrar", "deployer"])
def test_stranger_neither_transfers_nor_forces_a_split(
    world: World, earned: JobTerms, name: str
) -> None:
    with reverts(Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED):
        transfer(world, actor("thief").address, sender=name)
    assert world.vault.earnings(1) == 100 * RECORD


def test_failed_transfer_leaves_the_earnings_unsplit(world: World, earned: JobTerms) -> None:
    with reverts(Revert.ERC721_TRANSFER_TO_ZERO):
        transfer(world, ZERO_ADDRESS)
    with reverts(Revert.ERC721_TRANSFER_FROM_INCORRECT_OWNER):
        transfer(world, actor("buyer").address, source="thief")
    assert world.vault.earnings(1) == 100 * RECORD


def test_token_that_does_not_exist_is_not_transferred(world: World) -> None:
    people = actor("node owner").address, actor("buyer").address
    with reverts(Revert.ERC721_UNKNOWN_NODE):
        world.nodes.transferFrom(*people, 9, sender=people[0])
    with reverts(Revert.ERC721_UNKNOWN_NODE):
        world.nodes.ownerOf(9)


def test_transfer_goes_through_while_the_vault_is_paused(world: World, earned: JobTerms) -> None:
    world.vault.pause(sender=actor("guardian").address)
    transfer(world, actor("buyer").address)
    assert world.balance("node owner") == 20 * RECORD


# receivers


def give(world: World, receiver: Any) -> None:
    owner = actor("node owner").address
    world.nodes.safeTransferFrom(owner, receiver.address, 1, sender=owner)


def test_receiver_that_knows_erc721_gets_the_token_after_the_split(
    world: World, earned: JobTerms
) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    give(world, receiver)
    assert world.nodes.ownerOf(1) == receiver.address
    assert world.balance("node owner") == 20 * RECORD
    assert world.vault.balances(receiver.address) == 0


def test_receiver_that_refuses_gets_nothing(world: World, earned: JobTerms) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    receiver.refuse(sender=actor("thief").address)
    with reverts(Revert.ERC721_TRANSFER_TO_NON_RECEIVER):
        give(world, receiver)
    assert world.nodes.ownerOf(1) == actor("node owner").address
    assert world.vault.earnings(1) == 100 * RECORD


def test_receiver_that_calls_back_into_the_registry_gets_nowhere(
    world: World, earned: JobTerms
) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    call = world.nodes.transferFrom.prepare_calldata(receiver.address, actor("thief").address, 1)
    receiver.attack(world.nodes.address, call)
    give(world, receiver)
    assert (receiver.attempts(), receiver.reentered()) == (1, False)
    assert world.nodes.ownerOf(1) == receiver.address


def test_receiver_that_splits_on_arrival_gets_none_of_the_past(
    world: World, earned: JobTerms
) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    receiver.attack(world.vault.address, world.vault.distribute.prepare_calldata(1))
    give(world, receiver)
    assert (receiver.attempts(), receiver.reentered()) == (1, True)
    assert world.vault.balances(receiver.address) == 0
    assert world.balance("node owner") == 20 * RECORD


def test_registry_mints_by_registration_alone(world: World) -> None:
    names = {entry.get("name") for entry in world.nodes.abi}
    assert not names & {"safe_mint", "burn", "set_minter", "permit", "is_minter", "set_token_uri"}
    assert world.nodes.supportsInterface(bytes.fromhex("80ac58cd"))
    assert (world.nodes.totalSupply(), world.nodes.balanceOf(actor("node owner").address)) == (1, 1)
