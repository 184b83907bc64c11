"""Nodes as ERC-721 tokens whose past earnings do not travel with them."""

from collections.abc import Callable
from typing import Any

import boa
import pytest
from eth_utils import keccak
from world import World, actor, deploy, reverts

from settlement.models import MAX_NODE_ID, JobTerms
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

ACTIVE, SUSPENDED = 1, 2
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
    assert tuple(world.nodes.node(2)) == (ACTIVE, people["hospital"], people["onboarder"], HARDWARE)
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


def test_owner_registers_nodes_too(world: World) -> None:
    people = [actor(name).address for name in ("node owner", "hospital", "onboarder")]
    world.govern(world.nodes, "register_node", *people, HARDWARE)
    assert world.nodes.node_of_hardware(HARDWARE) == 2


@pytest.mark.parametrize("payee", ["hospital", "onboarder"])
@pytest.mark.parametrize("receiver", ["vault", "nodes"])
def test_vault_and_registry_are_no_payees(world: World, payee: str, receiver: str) -> None:
    """What they were owed, nobody could take out."""
    with reverts(Revert.NODES_RECEIVER_IS_NOT_ALLOWED):
        register(world, **{payee: getattr(world, receiver).address})
    assert world.nodes.node_count() == 1


@pytest.mark.parametrize("receiver", ["vault", "nodes"])
def test_vault_and_registry_are_no_node_owners(world: World, receiver: str) -> None:
    with reverts(Revert.NODES_RECEIVER_IS_NOT_ALLOWED):
        register(world, node_owner=getattr(world, receiver).address)
    assert world.nodes.node_count() == 1


def test_registry_takes_as_many_nodes_as_the_vault_can_number(world: World) -> None:
    slot = world.slot_read_by(world.nodes, "node_count")
    boa.env.set_storage(world.nodes.address, slot, MAX_NODE_ID - 1)
    assert register(world) == MAX_NODE_ID
    terms = world.terms(node_id=MAX_NODE_ID)
    world.open(terms)
    assert world.job(terms).node_id == MAX_NODE_ID
    with reverts(Revert.NODES_REGISTRY_IS_FULL):
        register(world, hardware_hash=keccak(text="one machine too many"))
    assert world.nodes.node_count() == MAX_NODE_ID


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
        lambda: world.govern(world.nodes, "retire", node_id),
        lambda: world.govern(world.nodes, "set_shares", node_id, 0, 0, 0),
        lambda: world.nodes.accept_treasury(node_id, sender=guardian),
    ]
    for call in calls:
        with reverts(Revert.NODES_NODE_IS_NOT_REGISTERED):
            call()


# suspension


def test_suspended_node_is_not_active_until_the_owner_resumes_it(world: World) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    assert world.events(world.nodes) == [("NodeSuspended", {"node_id": 1})]
    assert not world.nodes.is_active(1)
    assert world.nodes.node(1)[0] == SUSPENDED
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
    assert world.distribute() == 200 * RECORD
    assert world.vault.withdraw(sender=actor("hospital").address) == 140 * RECORD


# transfers


def test_transfer_splits_first_what_was_earned_before(world: World, earned: JobTerms) -> None:
    transfer(world, actor("buyer").address)
    events = world.events(world.nodes)
    assert [name for name, _ in events] == ["Distributed", "Transfer"]
    assert events[0][1]["node_owner"] == actor("node owner").address
    assert world.nodes.ownerOf(1) == actor("buyer").address
    assert world.balance("node owner") == 20 * RECORD
    assert (world.balance("buyer"), world.earnings().total) == (0, 0)
    world.settle(world.claim(earned, 150))
    world.distribute()
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
    assert world.earnings().total == 100 * RECORD


def test_failed_transfer_leaves_the_earnings_unsplit(world: World, earned: JobTerms) -> None:
    with reverts(Revert.ERC721_TRANSFER_TO_ZERO):
        transfer(world, ZERO_ADDRESS)
    with reverts(Revert.ERC721_TRANSFER_FROM_INCORRECT_OWNER):
        transfer(world, actor("buyer").address, source="thief")
    assert world.earnings().total == 100 * RECORD


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


@pytest.mark.parametrize("receiver", ["vault", "nodes"])
def test_token_is_not_sent_to_the_vault_or_the_registry(
    world: World, earned: JobTerms, receiver: str
) -> None:
    to, owner = getattr(world, receiver).address, actor("node owner").address
    with reverts(Revert.NODES_RECEIVER_IS_NOT_ALLOWED):
        transfer(world, to)
    with reverts(Revert.NODES_RECEIVER_IS_NOT_ALLOWED):
        world.nodes.safeTransferFrom(owner, to, 1, sender=owner)
    assert world.nodes.ownerOf(1) == owner
    assert world.earnings().total == 100 * RECORD


def test_operator_for_all_may_transfer(world: World, earned: JobTerms) -> None:
    owner = actor("node owner").address
    world.nodes.setApprovalForAll(actor("market").address, True, sender=owner)
    transfer(world, actor("buyer").address, sender="market")
    assert world.nodes.ownerOf(1) == actor("buyer").address
    with reverts(Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED):
        transfer(world, actor("market").address, sender="market", source="buyer")


def test_approval_ends_with_the_transfer(world: World) -> None:
    world.nodes.approve(actor("market").address, 1, sender=actor("node owner").address)
    transfer(world, actor("buyer").address, sender="market")
    assert world.nodes.getApproved(1) == ZERO_ADDRESS


def test_transfer_to_oneself_splits_and_changes_nothing(world: World, earned: JobTerms) -> None:
    transfer(world, actor("node owner").address)
    assert world.nodes.ownerOf(1) == actor("node owner").address
    assert world.balance("node owner") == 20 * RECORD


def test_safe_transfer_needs_the_owners_word_too(world: World, earned: JobTerms) -> None:
    owner, thief = actor("node owner").address, actor("thief").address
    with reverts(Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED):
        world.nodes.safeTransferFrom(owner, thief, 1, sender=thief)
    with reverts(Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED):
        world.nodes.safeTransferFrom(owner, thief, 1, b"data", sender=thief)
    assert world.earnings().total == 100 * RECORD
    world.nodes.safeTransferFrom(owner, actor("buyer").address, 1, b"data", sender=owner)
    assert world.nodes.ownerOf(1) == actor("buyer").address


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
    assert world.earnings().total == 100 * RECORD


def test_receiver_that_calls_back_into_the_registry_gets_nowhere(
    world: World, earned: JobTerms
) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    call = world.nodes.transferFrom.prepare_calldata(receiver.address, actor("thief").address, 1)
    receiver.attack(world.nodes.address, call)
    give(world, receiver)
    assert (receiver.attempts(), receiver.reentered()) == (1, False)
    assert world.nodes.ownerOf(1) == receiver.address


def test_receiver_may_ask_which_vault_pays_its_node(world: World, earned: JobTerms) -> None:
    receiver = deploy("TestReceiver", sender=actor("thief").address)
    receiver.attack(world.nodes.address, world.nodes.vault.prepare_calldata())
    give(world, receiver)
    assert (receiver.attempts(), receiver.reentered()) == (1, True)


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


# the rest of ERC-721


def test_approvals_are_logged_and_only_the_owner_gives_them(world: World) -> None:
    owner, market = actor("node owner").address, actor("market").address
    world.nodes.approve(market, 1, sender=owner)
    assert world.events(world.nodes) == [
        ("Approval", {"owner": owner, "approved": market, "token_id": 1})
    ]
    assert world.nodes.getApproved(1) == market
    world.nodes.setApprovalForAll(market, True, sender=owner)
    assert world.events(world.nodes) == [
        ("ApprovalForAll", {"owner": owner, "operator": market, "approved": True})
    ]
    assert world.nodes.isApprovedForAll(owner, market)
    assert not world.nodes.isApprovedForAll(market, owner)
    with reverts(Revert.ERC721_APPROVER_IS_NOT_OWNER_OR_OPERATOR):
        world.nodes.approve(actor("thief").address, 1, sender=actor("thief").address)


def test_operator_approves_for_the_holder_and_whom_it_approved_does_not(world: World) -> None:
    owner, market = actor("node owner").address, actor("market").address
    world.nodes.setApprovalForAll(market, True, sender=owner)
    world.nodes.approve(actor("buyer").address, 1, sender=market)
    assert world.nodes.getApproved(1) == actor("buyer").address
    with reverts(Revert.ERC721_APPROVER_IS_NOT_OWNER_OR_OPERATOR):
        world.nodes.approve(actor("thief").address, 1, sender=actor("buyer").address)
    world.nodes.approve(ZERO_ADDRESS, 1, sender=owner)
    assert world.nodes.getApproved(1) == ZERO_ADDRESS


def test_approvals_and_questions_that_mean_nothing_are_refused(world: World) -> None:
    owner = actor("node owner").address
    with reverts(Revert.ERC721_APPROVAL_TO_HOLDER):
        world.nodes.approve(owner, 1, sender=owner)
    with reverts(Revert.ERC721_APPROVAL_TO_CALLER):
        world.nodes.setApprovalForAll(owner, True, sender=owner)
    with reverts(Revert.ERC721_UNKNOWN_NODE):
        world.nodes.approve(owner, 2, sender=owner)
    with reverts(Revert.ERC721_GLOBAL_INDEX_OUT_OF_BOUNDS):
        world.nodes.tokenByIndex(1)
    with reverts(Revert.ERC721_HOLDERS_INDEX_OUT_OF_BOUNDS):
        world.nodes.tokenOfOwnerByIndex(owner, 1)
    with reverts(Revert.ERC721_HOLDER_IS_ZERO):
        world.nodes.balanceOf(ZERO_ADDRESS)


def test_nodes_can_be_listed_by_owner_and_in_all(world: World) -> None:
    second = world.register_node(hospital="hospital 2", owner="node owner 2")
    owner, other = actor("node owner").address, actor("node owner 2").address
    assert [world.nodes.tokenByIndex(i) for i in range(world.nodes.totalSupply())] == [1, second]
    assert world.nodes.tokenOfOwnerByIndex(other, 0) == second
    world.nodes.transferFrom(owner, other, 1, sender=owner)
    assert (world.nodes.balanceOf(owner), world.nodes.balanceOf(other)) == (0, 2)
    assert [world.nodes.tokenOfOwnerByIndex(other, i) for i in range(2)] == [second, 1]
