"""What a trace is read to say, on traces small enough to be counted by hand."""

import re
from typing import Any

import pytest

from scripts.bench.trace import TraceMismatch, calldata_gas, read_trace

BASE = 21_000
USDC, ECRECOVER = 0xC0FFEE, 1


def log(
    op: str, gas: int, cost: int, *stack: int, depth: int = 1, refund: int = 0
) -> dict[str, Any]:
    """A step as anvil gives it; of a call, `cost` has the gas that is handed on in it."""
    words = [hex(word) for word in stack]
    return {
        "op": op,
        "gas": gas,
        "gasCost": cost,
        "depth": depth,
        "stack": words,
        "refund": refund,
    }


def test_calldata_costs_4_a_zero_byte_and_16_any_other() -> None:
    assert calldata_gas(bytes([0, 0, 7])) == 24


def test_a_cold_read_is_told_from_a_warm_one() -> None:
    logs = [
        log("SLOAD", 10_000, 2_100, 5),
        log("SLOAD", 7_900, 100, 5),
        log("STOP", 7_800, 0),
    ]
    trace = read_trace(BASE + 2_200, b"", logs)
    assert (trace.cold_reads, trace.cold_writes) == (1, 0)
    assert trace.account({}) == {
        "transaction base": BASE,
        "storage reads, cold": 2_100,
        "storage reads, warm": 100,
    }
    assert trace.repriced == BASE + 5_460 + 100


def test_a_call_is_charged_to_who_is_called_and_not_for_the_gas_handed_on() -> None:
    logs = [
        log("CALL", 100_000, 92_600, 0, 0, 0, 0, 0, USDC, 90_000),
        log("SLOAD", 90_000, 2_100, 1, depth=2),
        log("DELEGATECALL", 87_900, 82_600, 0, 0, 0, 0, 0xBEEF, 80_000, depth=2),
        log("LOG3", 80_000, 1_500, depth=3),
        log("RETURN", 78_500, 6, depth=3),
        log("RETURN", 83_794, 0, depth=2),
        log("KECCAK256", 91_194, 42),
        log("STATICCALL", 91_152, 3_100, 0, 0, 0, 0, ECRECOVER, 5_000),
        log("LOG1", 88_052, 750),
        log("STOP", 87_302, 0),
    ]
    trace = read_trace(BASE + 16 + 12_698, b"\x07", logs)
    assert trace.account({(USDC, "CALL"): "USDC, moved"}) == {
        "transaction base": BASE,
        "calldata": 16,
        "logs": 750,
        "ecrecover": 3_100,
        "USDC, moved": 8_806,
        "hashing": 42,
    }


def test_a_contract_that_nobody_named_is_the_rest() -> None:
    logs = [log("EXTCODESIZE", 10_000, 2_600, USDC), log("STOP", 7_400, 0)]
    account = read_trace(BASE + 2_600, b"", logs).account({})
    assert account == {"transaction base": BASE, "rest of our own code": 2_600}


@pytest.mark.parametrize(
    ("cost", "cold", "repriced"),
    [
        (100, 0, 100),
        (2_200, 1, 3_040),
        (2_900, 0, 2_060),
        (5_000, 1, 5_000),
        (20_000, 0, 20_000),
        (22_100, 1, 22_940),
    ],
)
def test_a_write_is_priced_by_pip_88(cost: int, cold: int, repriced: int) -> None:
    logs = [log("SSTORE", 30_000, cost, 1, 5), log("STOP", 30_000 - cost, 0)]
    trace = read_trace(BASE + cost, b"", logs)
    assert trace.cold_writes == cold
    assert trace.repriced == BASE + repriced


def test_a_cleared_slot_is_given_back_at_either_price() -> None:
    logs = [log("SSTORE", 30_000, 5_000, 0, 5), log("STOP", 25_000, 0, refund=4_800)]
    trace = read_trace(BASE + 5_000 - 4_800, b"", logs)
    assert trace.account({})["refund of cleared storage"] == -4_800
    assert trace.repriced == BASE + 5_000 - 3_960


def test_no_more_than_a_fifth_is_given_back() -> None:
    logs = [
        log("SSTORE", 30_000, 2_900, 0, 5),
        log("SSTORE", 27_100, 2_900, 0, 6, refund=4_800),
        log("STOP", 24_200, 0, refund=9_600),
    ]
    assert read_trace((BASE + 5_800) * 4 // 5, b"", logs).refund == (BASE + 5_800) // 5


def test_a_trace_that_does_not_add_up_is_refused() -> None:
    message = "gas: the transaction used 21001 gas, its trace adds up to 21000"
    with pytest.raises(TraceMismatch, match=re.escape(message)):
        read_trace(BASE + 1, b"", [log("STOP", 5, 0)])
