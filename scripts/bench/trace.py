"""What a transaction's trace says about its gas: cold reads, its price under PIP-88, an account.

Pure: it takes the `structLogs` of `debug_traceTransaction`, with stacks, and gives numbers. Every
figure is checked against the gas that the receipt says was used, to the unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from settlement.errors import RaphaError

TRANSACTION_BASE = 21_000
CATEGORIES = (
    "transaction base",
    "calldata",
    "storage reads, cold",
    "storage reads, warm",
    "storage writes",
    "logs",
    "ecrecover",
    "USDC, moved",
    "USDC, balance checked",
    "enclave registry",
    "hashing",
    "reentrancy lock",
    "rest of our own code",
    "refund of cleared storage",
)
"""Where gas goes. What happens inside a call belongs to the contract that was called."""

_ECRECOVER = 1
_CALLS = frozenset({"CALL", "STATICCALL", "DELEGATECALL"})
_OWN = {
    "SSTORE": "storage writes",
    "TLOAD": "reentrancy lock",
    "TSTORE": "reentrancy lock",
    "KECCAK256": "hashing",
    **{f"LOG{topics}": "logs" for topics in range(5)},
}
_COLD_READ = 2_100
_PIP88_COLD_READ = 5_460
# SSTORE by what it costs: a write of no effect, of a slot in use, of an empty slot; each warm, cold
_PIP88_WRITES = {100: 100, 2_200: 3_040, 2_900: 2_060, 5_000: 5_000, 20_000: 20_000, 22_100: 22_940}
_COLD_WRITES = frozenset({2_200, 5_000, 22_100})
# what a write adds to the refund: a slot cleared, no longer cleared, or as it was before
_PIP88_REFUNDS = {
    0: 0,
    4_800: 3_960,
    -4_800: -3_960,
    2_800: 1_960,
    -2_000: -2_000,
    19_900: 19_900,
}


class TraceMismatch(RaphaError, ValueError):
    """A trace does not add up to the gas that its transaction used."""

    def __init__(self, what: str, *, used: int, traced: int) -> None:
        self.used, self.traced = used, traced
        super().__init__(f"{what}: the transaction used {used} gas, its trace adds up to {traced}")


Call = tuple[int, str]
"""The address that a contract calls or asks for its code, and the instruction by which it does."""


@dataclass(frozen=True)
class Step:
    """One instruction: the gas that it cost itself, what it added to the refund, and the call by
    the transaction's own contract within which it ran (`None` outside of such a call)."""

    op: str
    gas: int
    call: Call | None
    refund: int


@dataclass(frozen=True)
class Trace:
    """A mined transaction and its steps. `gas` is what the receipt says was used."""

    gas: int
    data: bytes
    steps: tuple[Step, ...]

    @property
    def calldata(self) -> int:
        """Gas of the calldata: 4 for a zero byte, 16 for any other."""
        return calldata_gas(self.data)

    @property
    def refund(self) -> int:
        """Gas given back for cleared storage (EIP-3529)."""
        return _refund(self._spent, sum(step.refund for step in self.steps))

    @property
    def cold_reads(self) -> int:
        """How many storage slots were read for the first time in the transaction."""
        return sum(step.op == "SLOAD" and step.gas == _COLD_READ for step in self.steps)

    @property
    def cold_writes(self) -> int:
        """How many storage slots were written without having been read before."""
        return sum(step.op == "SSTORE" and step.gas in _COLD_WRITES for step in self.steps)

    @property
    def repriced(self) -> int:
        """What the transaction uses by PIP-88's prices of storage, which Polygon charges.

        A cold read costs 5,460 and not 2,100, the cold part of a write 2,940 and not 2,100. A write
        to a slot in use still costs 5,000 in all, so 2,060 and not 2,900 once it has been read.
        Source: PIP-88, and bor's `makeGasSStoreFuncPIP88`.
        """
        spent = self._spent + sum(_repriced(step) - step.gas for step in self.steps)
        return spent - _refund(spent, sum(_PIP88_REFUNDS[step.refund] for step in self.steps))

    def account(self, calls: Mapping[Call, str]) -> dict[str, int]:
        """Where the gas went, by `CATEGORIES`; it sums to the gas used.

        `calls` gives the category of each call that the transaction's own contract makes.
        """
        sums = dict.fromkeys(CATEGORIES, 0)
        sums["transaction base"] = TRANSACTION_BASE
        sums["calldata"] = self.calldata
        sums["refund of cleared storage"] = -self.refund
        for step in self.steps:
            sums[_category(step, calls)] += step.gas
        return {category: gas for category, gas in sums.items() if gas}

    @property
    def _spent(self) -> int:
        return TRANSACTION_BASE + self.calldata + sum(step.gas for step in self.steps)


def read_trace(gas: int, data: bytes, logs: Sequence[Mapping[str, Any]]) -> Trace:
    """The trace of a transaction that called a contract with `data`.

    Raises:
        TraceMismatch: when the steps do not add up to `gas`.
    """
    trace = Trace(gas, data, _steps(logs))
    if (traced := trace._spent - trace.refund) != gas:
        raise TraceMismatch("gas", used=gas, traced=traced)
    return trace


def calldata_gas(data: bytes) -> int:
    """Gas of calldata, where the floor of EIP-7623 is not reached."""
    zeros = data.count(0)
    return 4 * zeros + 16 * (len(data) - zeros)


def _steps(logs: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    # A tracer counts the gas that a call hands on as the call's own cost, so a step's cost is
    # taken from the gas left before the next one, less what the called contract has used.
    gas = [0] * len(logs)
    calls: list[Call | None] = [None] * len(logs)
    refunds = [0] * len(logs)
    entered: list[int] = []
    outermost: Call | None = None
    for i, log in enumerate(logs):
        op, depth, left = log["op"], log["depth"], log["gas"]
        following = logs[i + 1] if i + 1 < len(logs) else None
        named = _named(op, log["stack"]) if depth == 1 else None
        calls[i] = named if depth == 1 else outermost
        if following is None:
            gas[i] = log["gasCost"]
        elif following["depth"] == depth:
            gas[i] = left - following["gas"]
            if op == "SSTORE":
                refunds[i] = following["refund"] - log["refund"]
        elif following["depth"] > depth:
            entered.append(i)
            outermost = named if depth == 1 else outermost
        else:
            gas[i] = log["gasCost"]
            call = entered.pop()
            used_inside = logs[call + 1]["gas"] - (left - log["gasCost"])
            gas[call] = logs[call]["gas"] - following["gas"] - used_inside
    return tuple(
        Step(log["op"], *of_step)
        for log, of_step in zip(logs, zip(gas, calls, refunds, strict=True), strict=True)
    )


def _named(op: str, stack: Sequence[str]) -> Call | None:
    if op in _CALLS:
        return int(stack[-2], 16), op
    return (int(stack[-1], 16), op) if op == "EXTCODESIZE" else None


def _category(step: Step, calls: Mapping[Call, str]) -> str:
    if step.call is not None:
        named = "ecrecover" if step.call[0] == _ECRECOVER else calls.get(step.call)
        return named or "rest of our own code"
    if step.op == "SLOAD":
        return f"storage reads, {'cold' if step.gas == _COLD_READ else 'warm'}"
    return _OWN.get(step.op, "rest of our own code")


def _repriced(step: Step) -> int:
    if step.op == "SLOAD" and step.gas == _COLD_READ:
        return _PIP88_COLD_READ
    return _PIP88_WRITES[step.gas] if step.op == "SSTORE" else step.gas


def _refund(spent: int, counted: int) -> int:
    return min(counted, spent // 5)
