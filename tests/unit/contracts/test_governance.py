"""What governance can do, what it must wait for, and that no money is in its reach."""

from typing import Any

import boa
import pytest
from eth_utils import keccak
from world import (
    ARBITRATION,
    DAY,
    GRACE,
    MEASUREMENT,
    WITHOUT_PLATFORMS,
    World,
    actor,
    create_committee,
    deploy,
    reverts,
)

from settlement.contracts import artifact, terms_ref
from settlement.dcap import INTEL
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

DELAY = 2 * DAY
NONE = bytes(32)
FRESH = b"\x07" * 32

# contract -> functions that change something, by who may call them; a new one must be put somewhere
CALLERS: dict[str, dict[str, set[str]]] = {
    "vault": {
        "anyone": {
            "open_job",
            "open_job_with_permit",
            "open_job_with_authorization",
            "open_jobs",
            "sponsor_job",
            "void_job",
            "assign",
            "settle",
            "settle_many",
            "refund",
            "distribute",
            "distribute_many",
            "distribute_past",
            "release",
            "deposit",
            "deposit_with_authorization",
            "withdraw",
            "withdraw_for",
            "withdraw_for_many",
            "withdraw_to",
            "withdraw_by_signature",
            "accept_ownership",
        },
        "payer or funder": {"top_up", "cancel", "dispute"},
        "registry": {"checkpoint", "set_active"},
        "arbiter": {"resolve"},
        "guardian": {"pause"},
        "owner": {"unpause", "recover", "set_arbiter", "set_guardian", "transfer_ownership"},
    },
    "nodes": {
        "anyone": {
            "transferFrom",
            "safeTransferFrom",
            "approve",
            "setApprovalForAll",
            "accept_ownership",
        },
        "registrar": {"register_node"},
        "hospital": {"propose_treasury", "accept_treasury", "retire"},
        "guardian": {"suspend"},
        "owner": {
            "resume",
            "set_shares",
            "set_registrar",
            "set_guardian",
            "transfer_ownership",
        },
    },
    "enclaves": {
        "anyone": {"register", "register_platform", "judge", "register_quote", "accept_ownership"},
        "guardian": {
            "revoke",
            "revoke_measurement",
            "revoke_platform",
            "revoke_certificate",
            "revoke_authority",
        },
        "owner": {
            "allow_measurement",
            "allow_authority",
            "set_quoting_enclave",
            "set_committee",
            "set_guardian",
            "transfer_ownership",
        },
    },
}
CONTRACTS = {
    "vault": "RaphaClearingVault",
    "nodes": "RaphaNodeRegistry",
    "enclaves": "EnclaveRegistry",
}

# stands for a committee that only `made` creates, since it takes a contract
THIEFS_COMMITTEE = actor("thief's committee").address
# every owner's function with arguments that would do something
OWNERS_CALLS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("vault", "unpause", ()),
    ("vault", "recover", (actor("usdc").address, actor("thief").address)),
    ("vault", "set_arbiter", (actor("thief").address,)),
    ("vault", "set_guardian", (actor("thief").address,)),
    ("vault", "transfer_ownership", (actor("thief").address,)),
    ("nodes", "resume", (1,)),
    ("nodes", "set_shares", (1, 4_000, 0, 1_000)),
    ("nodes", "set_registrar", (actor("thief").address,)),
    ("nodes", "set_guardian", (actor("thief").address,)),
    ("nodes", "transfer_ownership", (actor("thief").address,)),
    ("enclaves", "allow_measurement", (FRESH,)),
    ("enclaves", "allow_authority", (INTEL.authorities[0],)),
    ("enclaves", "set_quoting_enclave", (0, INTEL.sgx.abi_value())),
    ("enclaves", "set_committee", (THIEFS_COMMITTEE,)),
    ("enclaves", "set_guardian", (actor("thief").address,)),
    ("enclaves", "transfer_ownership", (actor("thief").address,)),
]
GUARDIANS_CALLS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("vault", "pause", ()),
    ("nodes", "suspend", (1,)),
    ("enclaves", "revoke", (actor("enclave").address,)),
    ("enclaves", "revoke_measurement", (MEASUREMENT,)),
    ("enclaves", "revoke_platform", (bytes(32),)),
    ("enclaves", "revoke_certificate", (bytes(32), 1)),
    ("enclaves", "revoke_authority", (bytes(32),)),
]


def made(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments, with a real committee of the thief's."""
    thief = actor("thief").address
    return tuple(
        create_committee([thief], 1).address if argument == THIEFS_COMMITTEE else argument
        for argument in arguments
    )


def schedule(
    world: World, target: Any, call: bytes, *, delay: int = DELAY, by: str = "proposer"
) -> bytes:
    world.timelock.schedule(target.address, 0, call, NONE, NONE, delay, sender=actor(by).address)
    return bytes(world.timelock.hash_operation(target.address, 0, call, NONE, NONE))


def execute(world: World, target: Any, call: bytes, by: str = "proposer") -> None:
    world.timelock.execute(target.address, 0, call, NONE, NONE, sender=actor(by).address)


# the closed list of who may call what


@pytest.mark.parametrize("name", CALLERS)
def test_every_function_that_changes_something_has_its_caller(name: str) -> None:
    changing = {
        entry["name"]
        for entry in artifact(CONTRACTS[name]).abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    listed = CALLERS[name].values()
    assert changing == set().union(*listed)
    assert sum(len(names) for names in listed) == len(changing)


@pytest.mark.parametrize("name", CONTRACTS)
def test_nothing_takes_native_coin(name: str) -> None:
    entries = artifact(CONTRACTS[name]).abi
    payable = [e["name"] for e in entries if e.get("stateMutability") == "payable"]
    assert payable == []


def test_lists_of_calls_are_complete() -> None:
    for calls, role in ((OWNERS_CALLS, "owner"), (GUARDIANS_CALLS, "guardian")):
        for name, roles in CALLERS.items():
            assert {function for where, function, _ in calls if where == name} == roles[role]


@pytest.mark.parametrize(("name", "function", "arguments"), OWNERS_CALLS)
@pytest.mark.parametrize("caller", ["guardian", "registrar", "proposer", "deployer", "thief"])
def test_only_the_owner_changes_parameters(
    world: World, name: str, function: str, arguments: tuple[Any, ...], caller: str
) -> None:
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        getattr(getattr(world, name), function)(*arguments, sender=actor(caller).address)


@pytest.mark.parametrize(("name", "function", "arguments"), GUARDIANS_CALLS)
@pytest.mark.parametrize("caller", ["registrar", "proposer", "payer", "deployer", "thief"])
def test_only_guardian_or_owner_stops_things(
    world: World, name: str, function: str, arguments: tuple[Any, ...], caller: str
) -> None:
    contract = getattr(world, name)
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        getattr(contract, function)(*arguments, sender=actor(caller).address)


@pytest.mark.parametrize(("name", "function", "arguments"), GUARDIANS_CALLS)
@pytest.mark.parametrize("by_owner", [False, True])
def test_guardian_and_owner_stop_things_at_once(
    world: World, name: str, function: str, arguments: tuple[Any, ...], by_owner: bool
) -> None:
    sender = world.deployment.timelock if by_owner else actor("guardian").address
    getattr(getattr(world, name), function)(*arguments, sender=sender)


def test_guardian_registers_no_node(world: World) -> None:
    people = [actor(n).address for n in ("node owner", "hospital", "onboarder")]
    with reverts(Revert.NODES_CALLER_IS_NOT_THE_REGISTRAR):
        world.nodes.register_node(*people, FRESH, sender=actor("guardian").address)


# no one can drain it


@pytest.mark.parametrize("window", [0, 3_600])
def test_no_call_of_owner_or_guardian_moves_money(window: int) -> None:
    """Escrow, earnings, disputes and balances stay as they are, whatever governance calls."""
    with World.temporary(window=window) as world:
        open_terms, closed = world.terms(1), world.terms(2)
        world.open(open_terms)
        world.open(closed)
        world.settle(world.claim(open_terms, 10), world.claim(closed, 20, complete=True))
        world.pass_time(2 * window)
        world.distribute()
        world.settle(world.claim(open_terms, 30))
        if window:
            world.dispute(open_terms)
            world.settle(world.claim(open_terms, 35))

        def money() -> list[Any]:
            """Whose it is in the end, once everything has matured and is split."""
            names = ("payer", "hospital", "node owner", "onboarder", "protocol")
            others = ("guardian", "thief", "arbiter")
            picture: list[Any] = [
                world.state_of(open_terms),
                world.state_of(closed),
                world.vault.owed(),
                world.usdc.balanceOf(world.vault.address),
                tuple(world.vault.disputes(1)),
            ]
            with boa.env.anchor():
                world.pass_time(2 * window)
                world.distribute()
                world.distribute_past(0)
                picture += [(world.balance(n), world.wallet(n)) for n in (*names, *others)]
            return [*picture, world.vault.balances(world.deployment.timelock)]

        before, thief = money(), actor("thief").address
        world.vault.pause(sender=actor("guardian").address)
        for name, function, arguments in [*OWNERS_CALLS, *GUARDIANS_CALLS]:
            if function == "recover":
                with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
                    world.govern(world.vault, "recover", world.usdc.address, arguments[1])
            elif function != "pause":
                world.govern(getattr(world, name), function, *made(arguments))
        assert money() == before
        # and the thief whom governance has now made guardian, owner-to-be, registrar, arbiter and
        # committee
        for contract in (world.vault, world.nodes, world.enclaves):
            contract.accept_ownership(sender=thief)
        with reverts(Revert.VAULT_NOTHING_TO_WITHDRAW):
            world.vault.withdraw(sender=thief)
        with reverts(Revert.VAULT_NOTHING_TO_RECOVER):
            world.vault.recover(world.usdc.address, thief, sender=thief)
        with reverts(Revert.VAULT_JOB_IS_STILL_PAYABLE):
            world.refund(open_terms)
        with reverts(Revert.VAULT_CALLER_IS_NOT_THE_PAYER):
            world.cancel(open_terms, "thief")
        with reverts(Revert.VAULT_CALLER_IS_NOT_REGISTRY):
            world.vault.checkpoint(1, sender=thief)
        assert money() == before


def test_thief_as_arbiter_moves_disputed_money_to_funder_or_node_and_to_nobody_else() -> None:
    with World.temporary(window=3_600) as world:
        terms = world.terms()
        world.open(terms)
        world.settle(world.claim(terms, 30))
        world.dispute(terms)
        world.govern(world.vault, "set_arbiter", actor("thief").address)
        world.resolve(1, 1_000_000, by="thief")
        assert (world.balance("payer"), world.earnings().matured) == (1_000_000, 2_000_000)
        assert world.balance("thief") == 0


def test_owner_cannot_change_who_shares_a_registered_nodes_earnings(world: World) -> None:
    with reverts(Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED):
        world.govern(
            world.nodes, "transferFrom", actor("node owner").address, actor("thief").address, 1
        )
    people = [actor("thief").address] * 3
    with reverts(Revert.NODES_HARDWARE_ALREADY_REGISTERED):
        world.govern(world.nodes, "register_node", *people, keccak(text="hardware 0"))


# the delay


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [c for c in OWNERS_CALLS if c[1] not in ("unpause", "recover")],
)
def test_change_waits_for_the_whole_delay(
    world: World, name: str, function: str, arguments: tuple[Any, ...]
) -> None:
    contract = getattr(world, name)
    call = getattr(contract, function).prepare_calldata(*made(arguments))
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        execute(world, contract, call)
    operation = schedule(world, contract, call)
    world.pass_time(DELAY - 1)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        execute(world, contract, call)
    world.pass_time(1)
    execute(world, contract, call)
    assert world.timelock.is_operation_done(operation)


def test_measurement_is_allowed_only_after_the_delay(world: World) -> None:
    call = world.enclaves.allow_measurement.prepare_calldata(FRESH)
    schedule(world, world.enclaves, call)
    assert not world.enclaves.is_measurement_allowed(FRESH)
    world.pass_time(DELAY)
    assert not world.enclaves.is_measurement_allowed(FRESH)
    execute(world, world.enclaves, call)
    assert world.enclaves.is_measurement_allowed(FRESH)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        execute(world, world.enclaves, call)


def test_shorter_delay_is_refused(world: World) -> None:
    call = world.enclaves.allow_measurement.prepare_calldata(FRESH)
    with reverts(Revert.TIMELOCK_DELAY_IS_TOO_SHORT):
        schedule(world, world.enclaves, call, delay=DELAY - 1)


def test_delay_itself_changes_only_through_the_delay(world: World) -> None:
    with reverts(Revert.TIMELOCK_CALLER_IS_NOT_THE_TIMELOCK):
        world.timelock.update_delay(0, sender=actor("proposer").address)
    call = world.timelock.update_delay.prepare_calldata(0)
    schedule(world, world.timelock, call)
    world.pass_time(DELAY - 1)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        execute(world, world.timelock, call)


@pytest.mark.parametrize("name", ["guardian", "deployer", "thief", "payer"])
def test_stranger_neither_announces_nor_executes(world: World, name: str) -> None:
    call = world.enclaves.allow_measurement.prepare_calldata(FRESH)
    with reverts(Revert.ACCESS_ROLE_IS_MISSING):
        schedule(world, world.enclaves, call, by=name)
    schedule(world, world.enclaves, call)
    world.pass_time(DELAY)
    with reverts(Revert.ACCESS_ROLE_IS_MISSING):
        execute(world, world.enclaves, call, by=name)


@pytest.mark.parametrize("name", ["guardian", "deployer", "proposer", "thief"])
def test_no_one_but_the_timelock_gives_its_roles(world: World, name: str) -> None:
    role = world.timelock.PROPOSER_ROLE()
    with reverts(Revert.ACCESS_ROLE_IS_MISSING):
        world.timelock.grantRole(role, actor("thief").address, sender=actor(name).address)


def test_cancelled_operation_is_never_executed(world: World) -> None:
    call = world.enclaves.allow_measurement.prepare_calldata(FRESH)
    operation = schedule(world, world.enclaves, call)
    world.timelock.cancel(operation, sender=actor("proposer").address)
    world.pass_time(DELAY)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        execute(world, world.enclaves, call)


# owner and guardian


@pytest.mark.parametrize("name", CONTRACTS)
def test_timelock_owns_every_contract_and_the_deployer_none(world: World, name: str) -> None:
    contract = getattr(world, name)
    assert contract.owner() == world.deployment.timelock
    assert contract.pending_owner() == ZERO_ADDRESS
    assert contract.guardian() == actor("guardian").address


@pytest.mark.parametrize("name", CONTRACTS)
def test_ownership_passes_in_two_steps(world: World, name: str) -> None:
    contract, heir = getattr(world, name), actor("heir").address
    timelock = world.deployment.timelock
    world.govern(contract, "transfer_ownership", heir)
    assert world.events(contract) == [
        ("OwnershipTransferStarted", {"previous_owner": timelock, "new_owner": heir})
    ]
    assert (contract.owner(), contract.pending_owner()) == (timelock, heir)
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_NEW_OWNER):
        contract.accept_ownership(sender=actor("thief").address)
    contract.accept_ownership(sender=heir)
    assert world.events(contract) == [
        ("OwnershipTransferred", {"previous_owner": timelock, "new_owner": heir})
    ]
    assert (contract.owner(), contract.pending_owner()) == (heir, ZERO_ADDRESS)
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        world.govern(contract, "set_guardian", heir)


@pytest.mark.parametrize("name", CONTRACTS)
def test_replaced_guardian_can_do_nothing_more(world: World, name: str) -> None:
    contract = getattr(world, name)
    function, arguments = next((f, a) for c, f, a in GUARDIANS_CALLS if c == name)
    old, new = actor("guardian").address, actor("guardian 2").address
    world.govern(contract, "set_guardian", new)
    assert world.events(contract) == [
        ("GuardianChanged", {"previous_guardian": old, "new_guardian": new})
    ]
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        getattr(contract, function)(*arguments, sender=actor("guardian").address)
    getattr(contract, function)(*arguments, sender=actor("guardian 2").address)


def test_empty_post_of_guardian_leaves_the_owner_to_stop_things(world: World) -> None:
    world.govern(world.vault, "set_guardian", ZERO_ADDRESS)
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        world.vault.pause(sender=actor("guardian").address)
    world.govern(world.vault, "pause")


# constructors


def build(world: World, contract: str, **changes: Any) -> Any:
    deployer = actor("deployer").address
    arguments: dict[str, dict[str, Any]] = {
        "RaphaClearingVault": {
            "usdc": world.usdc.address,
            "nodes": world.nodes.address,
            "enclaves": world.enclaves.address,
            "owner": world.timelock.address,
            "guardian": actor("guardian").address,
            "arbiter": actor("arbiter").address,
            "grace": GRACE,
            "window": 0,
            "arbitration": ARBITRATION,
        },
        "RaphaNodeRegistry": {
            "owner": world.timelock.address,
            "guardian": actor("guardian").address,
            "registrar": actor("registrar").address,
            "protocol": actor("protocol").address,
            "vault": world.vault.address,
        },
        "EnclaveRegistry": {
            "owner": world.timelock.address,
            "guardian": actor("guardian").address,
            "committee": world.enclaves.committee(),
            "measurements": [MEASUREMENT],
            "trust": WITHOUT_PLATFORMS.abi_value(ZERO_ADDRESS),
        },
    }
    return deploy(contract, *{**arguments[contract], **changes}.values(), sender=deployer)


def test_vault_refuses_a_node_registry_that_serves_another(world: World) -> None:
    with reverts(Revert.VAULT_NODE_REGISTRY_SERVES_ANOTHER_VAULT):
        build(world, "RaphaClearingVault")


@pytest.mark.parametrize("what", ["usdc", "enclaves"])
def test_vault_refuses_what_is_no_contract(world: World, what: str) -> None:
    with reverts(Revert.VAULT_NOT_A_CONTRACT):
        world.create_vault(**{what: actor("thief").address})


@pytest.mark.parametrize("grace", [3_600, 30 * DAY])
def test_vault_takes_a_grace_within_its_bounds(grace: int) -> None:
    with World.temporary(grace=grace) as world:
        terms = world.terms()
        world.open(terms)
        assert world.vault.grace() == grace
        end = world.vault.funder_and_end(terms_ref(terms))[1]
        assert end == terms.deadline + grace


@pytest.mark.parametrize("grace", [0, 3_599, 30 * DAY + 1, 2**256 - 1])
def test_vault_refuses_a_grace_out_of_range(grace: int) -> None:
    with reverts(Revert.VAULT_GRACE_OUT_OF_RANGE), World.temporary() as world:
        world.create_vault(grace=grace)


@pytest.mark.parametrize("contract", CONTRACTS.values())
def test_owner_of_zero_is_refused(world: World, contract: str) -> None:
    if contract == "RaphaClearingVault":
        with reverts(Revert.GOVERNANCE_OWNER_IS_ZERO):
            world.create_vault(owner=ZERO_ADDRESS)
    else:
        with reverts(Revert.GOVERNANCE_OWNER_IS_ZERO):
            build(world, contract, owner=ZERO_ADDRESS)


def test_node_registry_refuses_zero_for_protocol_and_vault(world: World) -> None:
    with reverts(Revert.NODES_PAYEE_IS_ZERO):
        build(world, "RaphaNodeRegistry", protocol=ZERO_ADDRESS)
    with reverts(Revert.NODES_VAULT_IS_ZERO):
        build(world, "RaphaNodeRegistry", vault=ZERO_ADDRESS)
    # its share would be owed to the vault for ever
    with reverts(Revert.NODES_RECEIVER_IS_NOT_ALLOWED):
        build(world, "RaphaNodeRegistry", protocol=world.vault.address)
