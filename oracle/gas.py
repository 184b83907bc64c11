"""How long a key's native coin lasts."""

from dataclasses import dataclass

from oracle.batching import BASE_GAS, RECEIPT_GAS


@dataclass(frozen=True)
class GasPolicy:
    """Below how many full batches' gas, at present fees, a key's balance raises the alarm."""

    alarm_batches: int = 20
    max_batch: int = 100


@dataclass(frozen=True)
class KeyState:
    """One relaying key, as operators see it. Wei; `batches` is how many full ones it can pay."""

    address: str
    balance: int | None
    batches: int | None
    pending: int
    trouble: str | None
    low: bool


def affordable_batches(balance: int, gas_price: int, policy: GasPolicy) -> int:
    """How many full batches a balance pays for at a gas price, both in wei."""
    cost = (BASE_GAS + RECEIPT_GAS * policy.max_batch) * max(gas_price, 1)
    return balance // cost


def is_low(balance: int, gas_price: int, policy: GasPolicy) -> bool:
    """Whether a key is to be refilled."""
    return affordable_batches(balance, gas_price, policy) < policy.alarm_batches
