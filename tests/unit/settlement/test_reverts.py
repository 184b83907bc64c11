"""From what a node answers to a typed reason."""

from typing import Any

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st
from web3.exceptions import ContractLogicError, Web3RPCError

from settlement.errors import RaphaError
from settlement.reverts import ContractReverted, Revert, reason_of, reverted

SELECTOR = bytes.fromhex("08c379a0")


def data_of(reason: str) -> bytes:
    return SELECTOR + encode(["string"], [reason])


@given(st.text(max_size=200))
def test_reason_is_read_from_bytes_and_hex(reason: str) -> None:
    data = data_of(reason)
    assert reason_of(data) == reason == reason_of("0x" + data.hex()) == reason_of(data.hex())


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        "",
        "0x",
        "no hex",
        SELECTOR,
        SELECTOR + bytes(31),
        data_of("vault: paused")[:-33],
        bytes.fromhex("4e487b71") + bytes(31) + b"\x11",
        SELECTOR + encode(["uint256", "uint256"], [32, 2**255]),
    ],
)
def test_what_is_no_reason_gives_none(data: Any) -> None:
    assert reason_of(data) is None


@given(st.binary(max_size=150))
def test_any_data_is_read_without_raising(data: bytes) -> None:
    reason_of(data)
    reason_of(SELECTOR + data)


@pytest.mark.parametrize("member", Revert)
def test_known_reason_is_typed(member: Revert) -> None:
    error = ContractReverted(member.value)
    assert (error.revert, error.code, error.final) == (member, member.name, member.final)
    assert member.value in str(error)
    assert isinstance(error, (RaphaError, RuntimeError))


def test_reasons_are_distinct() -> None:
    assert len({member.value for member in Revert}) == len(Revert.__members__)


@pytest.mark.parametrize("reason", ["", "something else", "vault:  paused", "Vault: paused"])
def test_unknown_reason_is_not_final(reason: str) -> None:
    error = ContractReverted(reason)
    assert (error.revert, error.code, error.final) == (None, "ContractReverted", False)


def test_empty_reason_is_said_to_be_none() -> None:
    assert str(ContractReverted("")) == "the contract refused: no reason given"


@pytest.mark.parametrize(
    "member",
    [
        Revert.VAULT_PAUSED,
        Revert.VAULT_JOB_IS_STILL_PAYABLE,
        Revert.VAULT_NOTHING_TO_WITHDRAW,
        Revert.USDC_PAUSED,
        Revert.USDC_BLACKLISTED,
        Revert.USDC_BALANCE_TOO_LOW,
        Revert.USDC_AUTHORIZATION_NOT_YET_VALID,
    ],
)
def test_what_time_or_others_can_change_is_not_final(member: Revert) -> None:
    assert not member.final


@pytest.mark.parametrize(
    "member",
    [
        Revert.VAULT_JOB_EXISTS,
        Revert.VAULT_JOB_IS_NOT_OPEN,
        Revert.VAULT_DEADLINE_HAS_PASSED,
        Revert.USDC_AUTHORIZATION_EXPIRED,
        Revert.USDC_AUTHORIZATION_USED,
        Revert.ENCLAVES_KEY_IS_REVOKED,
    ],
)
def test_what_never_changes_is_final(member: Revert) -> None:
    assert member.final


def test_logic_error_of_web3_is_read_from_its_data() -> None:
    error = ContractLogicError(
        "execution reverted: cut short", data=data_of("vault: job exists").hex()
    )
    assert reverted(error).revert is Revert.VAULT_JOB_EXISTS


def test_logic_error_without_data_is_read_from_its_message() -> None:
    error = ContractLogicError("execution reverted: vault: paused")
    assert reverted(error).revert is Revert.VAULT_PAUSED


def test_rpc_error_is_read_from_the_nodes_answer() -> None:
    answer: Any = {
        "error": {"code": 3, "message": "x", "data": "0x" + data_of("vault: paused").hex()}
    }
    assert reverted(Web3RPCError("x", rpc_response=answer)).revert is Revert.VAULT_PAUSED


def test_revert_without_reason_is_still_a_typed_error() -> None:
    assert reverted(ContractLogicError("execution reverted")).reason == ""
