"""Every external function, called by anybody with anything, in the middle of a world's life.

A call succeeds, or is refused for a reason that somebody can look up; the ledger agrees with what
the vault holds all the while, and a thief, who may send any call at all, ends with nothing.
"""

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from boa.util.abi import abi_encode
from fuzz.calls import arguments, encode, selector_of, signature_of
from fuzz.scene import NAMES, Outcome, Scene, functions_of
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from world import DAY, actor

from settlement.contracts import terms_ref
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

EVERY = [(name, function) for name in NAMES for function in functions_of(name)]
CHANGING = [(n, f) for n, f in EVERY if f["stateMutability"] in ("nonpayable", "payable")]
READING = [(n, f) for n, f in EVERY if f["stateMutability"] in ("view", "pure")]
# the timelock's pass it on
PAYABLE = {("timelock", "execute"), ("timelock", "execute_batch")}
# two of three calls go to where the money is
WEIGHTED = [*CHANGING, *((n, f) for n, f in CHANGING if n == "vault")]
# the default profile has a hundred examples
MANY, FEW = max(1, settings().max_examples // 5), max(1, settings().max_examples // 25)
CALLS = 12

# (contract, function) -> why it may revert without a reason although its arguments are well-formed
WITHOUT_REASON = {
    ("vault", "recover"): "what is named as a token has no code, or no such functions",
    ("vault", "funder_and_end"): "the deadline of a job that does not exist and the grace overflow",
    (
        "nodes",
        "safeTransferFrom",
    ): "the receiver is a contract that knows no ERC-721, and says nothing",
    ("enclaves", "check_quote"): "header and report are longer than those of any quote",
    ("enclaves", "register_quote"): "header and report are longer than those of any quote",
    ("timelock", "schedule"): "the time and the delay overflow",
    ("timelock", "schedule_batch"): "the time and the delay overflow",
}

# functions that do something for anybody: what others signed for, what time or nobody's choice
# brings about, and what concerns the caller alone
ANYBODY = {
    ("vault", "assign"),
    ("vault", "deposit_with_authorization"),
    ("vault", "distribute"),
    ("vault", "distribute_many"),
    ("vault", "distribute_past"),
    ("vault", "open_job_with_authorization"),
    ("vault", "open_jobs"),
    ("vault", "refund"),
    ("vault", "release"),
    ("vault", "settle"),
    ("vault", "settle_many"),
    ("vault", "void_job"),
    ("vault", "withdraw_by_signature"),
    ("vault", "withdraw_for"),
    ("vault", "withdraw_for_many"),
    ("nodes", "setApprovalForAll"),
    ("enclaves", "register"),
    ("enclaves", "register_platform"),
    ("enclaves", "judge"),
    ("enclaves", "register_quote"),
}


# the last is the test USDC's, called as a token's receiver or by the timelock, which pass it on
REASONS = {*(member.value for member in Revert), "TestUSDC: unknown function"}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with boa.env.anchor():
        yield Scene.create()


def named(call: Any) -> str:
    return call if isinstance(call, str) else str(call["name"])


def check_refusal(
    contract: str, function: dict[str, Any], outcome: Outcome, *, well_formed: bool
) -> None:
    """Whether a function may refuse so."""
    name = function["name"]
    if outcome.data:
        assert outcome.reason in REASONS, f"{contract}.{name}: {outcome.reason}"
    elif well_formed:
        assert (contract, name) in WITHOUT_REASON, f"{contract}.{name} gave no reason"
    else:
        # an argument could not be decoded
        assert function["inputs"], f"{contract}.{name} gave no reason"


def make(scene: Scene, data: st.DataObject, contract: str, function: dict[str, Any]) -> None:
    """One call by anybody or by who may, and what must be so after it."""
    fitting = scene.fitting_senders(contract, function["name"])
    sender = data.draw(st.one_of(st.sampled_from(scene.senders), st.sampled_from(fitting)))
    calldata = encode(function, data.draw(arguments(scene, contract, function)))
    outcome = scene.call(contract, calldata, sender)
    event(f"{contract}.{function['name']}: {'refused' if outcome.reverted else 'done'}")
    if outcome.reverted:
        check_refusal(contract, function, outcome, well_formed=True)
    elif (contract, function) in CHANGING:
        scene.check()


def test_the_world_has_something_of_everything(scene: Scene) -> None:
    """So that the sums below add up more than zeros."""
    scene.check()
    vault, world = scene.world.vault, scene.world
    states = {vault.job(job_id)[0] for job_id in scene.job_ids}
    assert states == {1, 2, 3, 4}
    assert all(part > 0 for part in vault.earnings_of(1)[:3])
    assert vault.past_earnings_of(1, 0)[5] == 1
    assert vault.disputes(1)[3] > 0
    assert world.balance("payer") > 0
    assert world.usdc.balanceOf(vault.address) > vault.owed()


@pytest.mark.parametrize(("contract", "function"), CHANGING, ids=named)
@settings(max_examples=MANY)
@given(data=st.data())
def test_function_that_changes_something(
    scene: Scene, contract: str, function: dict[str, Any], data: st.DataObject
) -> None:
    with scene.undone():
        make(scene, data, contract, function)


@pytest.mark.parametrize(("contract", "function"), READING, ids=named)
@settings(max_examples=FEW)
@given(data=st.data())
def test_function_that_reads(
    scene: Scene, contract: str, function: dict[str, Any], data: st.DataObject
) -> None:
    make(scene, data, contract, function)


@pytest.mark.parametrize(("contract", "function"), CHANGING, ids=named)
def test_stranger_succeeds_only_where_anybody_may(
    scene: Scene, contract: str, function: dict[str, Any]
) -> None:
    """With what would do for who may, now and when all that time brings about has come."""
    near = [
        call
        for call in scene.near_calls.get((contract, function["name"]), [()])
        if len(call) == len(function["inputs"])
    ]
    succeeded = False
    for call in near:
        for seconds in (0, 40 * DAY):
            with scene.undone():
                scene.world.pass_time(seconds)
                outcome = scene.call(contract, encode(function, call), actor("thief").address)
                succeeded |= not outcome.reverted
                scene.check()
    assert succeeded == ((contract, function["name"]) in ANYBODY)


def test_every_function_has_a_call_that_would_do(scene: Scene) -> None:
    """So that the test before has something to send."""
    known = {(name, len(call)) for name, calls in scene.near_calls.items() for call in calls} | {
        ((n, f["name"]), 0) for n, f in CHANGING if not f["inputs"]
    }
    wanted = {((n, f["name"]), len(f["inputs"])) for n, f in CHANGING}
    # with more options given than these need
    optional = {(("nodes", "safeTransferFrom"), 4)}
    assert wanted - known - optional == set()


@settings(max_examples=2 * MANY)
@given(data=st.data())
def test_calls_one_after_the_other(scene: Scene, data: st.DataObject) -> None:
    with scene.undone():
        for _ in range(CALLS):
            make(scene, data, *data.draw(st.sampled_from(WEIGHTED)))
            scene.world.pass_time(data.draw(st.sampled_from([0, 0, 0, 1, 3_600, 10**6])))
        scene.check()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5 * MANY)
@given(data=st.data())
def test_bytes_after_a_selector(scene: Scene, name: str, data: st.DataObject) -> None:
    """Calldata that no encoder made: arguments cut short, offsets into nowhere, dirty words."""
    function = data.draw(st.sampled_from(functions_of(name)))
    words = st.one_of(
        st.sampled_from([0, 1, 32, 64, 4, 2**255, 2**256 - 1]), st.integers(0, 2**256 - 1)
    )
    tail = data.draw(
        st.one_of(
            st.binary(max_size=600),
            st.lists(words, max_size=24).map(lambda w: b"".join(i.to_bytes(32) for i in w)),
        )
    )
    sender = data.draw(st.sampled_from(scene.senders))
    with scene.undone():
        outcome = scene.call(name, selector_of(function) + tail, sender)
        event(f"{'refused' if outcome.reverted else 'done'}")
        if outcome.reverted:
            check_refusal(name, function, outcome, well_formed=False)
        scene.check()


def test_refusals_without_a_reason_are_those_that_are_listed(scene: Scene) -> None:
    nodes, enclaves = scene.contracts["nodes"], str(scene.contracts["enclaves"].address)
    late = (*terms_ref(scene.waiting)[:5], 2**256 - 1, *terms_ref(scene.waiting)[6:])
    owner, proposer = actor("node owner 2").address, actor("proposer").address
    vault, nothing, never = str(scene.contracts["vault"].address), bytes(32), 2**256 - 1
    (quote, *others) = scene.near_calls["enclaves", "register_quote"][0]
    long = (bytes(633), *quote[1:])
    calls: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
        ("vault", "recover"): (str(nodes.owner()), (actor("payer").address, owner)),
        ("vault", "funder_and_end"): (owner, (late,)),
        ("nodes", "safeTransferFrom"): (owner, (owner, enclaves, 1)),
        ("enclaves", "check_quote"): (owner, (long,)),
        ("enclaves", "register_quote"): (owner, (long, *others)),
        ("timelock", "schedule"): (proposer, (vault, 0, b"", nothing, nothing, never)),
        ("timelock", "schedule_batch"): (proposer, ([vault], [0], [b""], nothing, nothing, never)),
    }
    assert calls.keys() == WITHOUT_REASON.keys()
    for (contract, name), (sender, values) in calls.items():
        (function,) = (
            f
            for f in functions_of(contract)
            if f["name"] == name and len(f["inputs"]) == len(values)
        )
        assert scene.call(contract, encode(function, values), sender) == Outcome(True, b"")


DYNAMIC = [
    (name, function)
    for name, function in EVERY
    if any(
        entry["type"] in ("bytes", "string") or "[]" in entry["type"]
        for entry in function["inputs"]
    )
]


def too_long(entry: dict[str, Any]) -> Any:
    """A value of more bytes or members than any function takes; zeros where it has a fixed size."""
    kind = entry["type"]
    if kind in ("bytes", "string"):
        return b"\x01" * 20_000 if kind == "bytes" else "x" * 20_000
    if kind.endswith("[]"):
        return [too_long({**entry, "type": kind[:-2]})] * 300
    if kind.endswith("]"):
        inner, _, size = kind[:-1].rpartition("[")
        return [too_long({**entry, "type": inner})] * int(size)
    if kind == "tuple":
        return tuple(too_long(component) for component in entry["components"])
    if kind == "address":
        return ZERO_ADDRESS
    if kind == "bool":
        return False
    return bytes(int(kind.removeprefix("bytes"))) if kind.startswith("bytes") else 0


@pytest.mark.parametrize(("contract", "function"), DYNAMIC, ids=named)
def test_what_is_too_long_is_not_decoded(
    scene: Scene, contract: str, function: dict[str, Any]
) -> None:
    calldata = encode(function, tuple(too_long(entry) for entry in function["inputs"]))
    assert scene.call(contract, calldata, actor("anyone").address) == Outcome(True, b"")


@pytest.mark.parametrize(("contract", "function"), EVERY, ids=named)
def test_no_function_takes_ether(scene: Scene, contract: str, function: dict[str, Any]) -> None:
    """But those that are listed, and no other is declared so."""
    assert ((contract, function["name"]) in PAYABLE) == (function["stateMutability"] == "payable")
    if function["stateMutability"] == "payable":
        return
    with scene.undone():
        sender = actor("anyone").address
        boa.env.set_balance(sender, 10**18)
        near = scene.near_calls.get((contract, function["name"]), [])
        fitting = [call for call in near if len(call) == len(function["inputs"])]
        calldata = encode(function, fitting[0]) if fitting else selector_of(function)
        assert scene.call(contract, calldata, sender, value=1) == Outcome(True, b"")


@pytest.mark.parametrize("name", NAMES)
def test_plain_ether_is_refused(scene: Scene, name: str) -> None:
    with scene.undone():
        sender = actor("anyone").address
        boa.env.set_balance(sender, 10**18)
        assert scene.call(name, b"", sender, value=1) == Outcome(True, b"")
        assert boa.env.get_balance(scene.contracts[name].address) == 0


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=MANY)
@given(calldata=st.binary(max_size=300), sender=st.integers(0, 100))
@example(calldata=b"", sender=0)
@example(calldata=b"\x00", sender=0)
@example(calldata=bytes(4), sender=0)
def test_unknown_selector_is_refused(scene: Scene, name: str, calldata: bytes, sender: int) -> None:
    assert calldata[:4] not in {selector_of(function) for function in functions_of(name)}
    caller = scene.senders[sender % len(scene.senders)]
    assert scene.call(name, calldata, caller) == Outcome(True, b"")


def test_encoder_is_the_abis() -> None:
    """One known encoding, so that the random ones mean what they say."""
    (transfer,) = (f for f in functions_of("nodes") if f["name"] == "transferFrom")
    assert signature_of(transfer) == "(address,address,uint256)"
    assert selector_of(transfer).hex() == "23b872dd"
    words = abi_encode("(address,address,uint256)", [ZERO_ADDRESS, ZERO_ADDRESS, 7])
    assert encode(transfer, (ZERO_ADDRESS, ZERO_ADDRESS, 7))[4:] == words
