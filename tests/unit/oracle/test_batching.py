"""When a batch goes, and how receipts that reverted are told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.batching import (
    BASE_GAS,
    RECEIPT_GAS,
    BatchPolicy,
    Go,
    Waiting,
    decide,
    divide,
)
from oracle.gas import GasPolicy, affordable_batches, is_low

NOW = 1_800_000_000
GWEI = 10**9
USDC = 10**6
POLICY = BatchPolicy(
    max_batch=10,
    min_value=5 * USDC,
    max_age=60,
    completing_age=10,
    cheap_gas=30 * GWEI,
    max_gas_share=20,
    coin_price=USDC // 2,
    urgency=600,
)


def waiting(value: int = 0, age: int = 0, left: int = 10_000, **changes: object) -> Waiting:
    fields = {"value": value, "since": NOW - age, "until": NOW + left, "complete": False}
    return Waiting(**{**fields, **changes})  # type: ignore[arg-type]


items = st.lists(
    st.builds(
        waiting,
        value=st.integers(0, 10**9),
        age=st.integers(0, 200),
        left=st.integers(0, 20_000),
        complete=st.booleans(),
    ),
    max_size=12,
)
prices = st.integers(0, 10**13)


@pytest.mark.parametrize(
    ("batch", "price", "why"),
    [
        ([], 0, Go.EMPTY),
        ([waiting(5 * USDC)], 100 * GWEI, Go.VALUABLE),
        ([waiting(4 * USDC)], 100 * GWEI, Go.YOUNG),
        ([waiting(4 * USDC)], 30 * GWEI, Go.CHEAP),
        ([waiting(4 * USDC, age=60)], 100 * GWEI, Go.OLD),
        ([waiting(4 * USDC, age=59)], 100 * GWEI, Go.YOUNG),
        ([waiting(4 * USDC, age=10, complete=True)], 100 * GWEI, Go.OLD),
        ([waiting(4 * USDC, age=9, complete=True)], 100 * GWEI, Go.YOUNG),
        ([waiting(4 * USDC // 10)] * 10, 100 * GWEI, Go.FULL),
        ([waiting(USDC // 100)] * 10, 100 * GWEI, Go.COSTLY),
        ([waiting(5 * USDC)], 100_000 * GWEI, Go.COSTLY),
        ([waiting(5 * USDC, age=60)], 100_000 * GWEI, Go.OLD),
        ([waiting(0, left=600)], 100_000 * GWEI, Go.URGENT),
        ([waiting(0, left=601)], 100_000 * GWEI, Go.COSTLY),
    ],
)
def test_a_batch_goes_for_the_reason_that_is_due(batch: list[Waiting], price: int, why: Go) -> None:
    assert decide(batch, price, NOW, POLICY) is why


def test_the_defaults_send_whatever_is_due_at_once() -> None:
    assert decide([waiting()], 10**15, NOW, BatchPolicy()).sends


def test_gas_is_too_dear_from_just_above_its_share() -> None:
    value = 10 * USDC
    gas = BASE_GAS + RECEIPT_GAS
    # a fifth of the value, at half a USDC a coin
    price = value * 20 * 10**18 // (100 * gas * (USDC // 2))
    assert decide([waiting(value)], price, NOW, POLICY) is Go.VALUABLE
    assert decide([waiting(value)], price + 1, NOW, POLICY) is Go.COSTLY


@given(items, prices)
def test_nothing_waits_longer_than_the_age(batch: list[Waiting], price: int) -> None:
    later = NOW + POLICY.max_age
    assert decide(batch, price, later, POLICY).sends == bool(batch)


@given(items, prices, st.integers(0, 10**6))
def test_time_only_ever_brings_a_batch_on_its_way(
    batch: list[Waiting], price: int, passed: int
) -> None:
    if decide(batch, price, NOW, POLICY).sends:
        assert decide(batch, price, NOW + passed, POLICY).sends


@given(items, prices, prices)
def test_dearer_gas_never_sends_what_cheaper_gas_keeps(
    batch: list[Waiting], one: int, other: int
) -> None:
    cheap, dear = sorted((one, other))
    if decide(batch, dear, NOW, POLICY).sends:
        assert decide(batch, cheap, NOW, POLICY).sends


@given(items, prices, st.integers(0, 10**9))
def test_more_value_never_holds_a_batch_back(batch: list[Waiting], price: int, more: int) -> None:
    richer = [Waiting(item.value + more, item.since, item.until, item.complete) for item in batch]
    if decide(batch, price, NOW, POLICY).sends:
        assert decide(richer, price, NOW, POLICY).sends


@given(items)
def test_what_is_soon_not_paid_goes_whatever_it_costs(batch: list[Waiting]) -> None:
    assert decide([*batch, waiting(left=POLICY.urgency)], 10**18, NOW, POLICY) is Go.URGENT


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 16))
def test_each_receipt_is_in_one_batch_at_most_and_with_its_like(
    reverts: list[int], max_batch: int
) -> None:
    pairs = [(waiting(reverts=count), index) for index, count in enumerate(reverts)]
    batches = divide(pairs, height=10**9, max_batch=max_batch, patience=5)
    found = sorted(index for batch in batches for _, index in batch)
    assert found == list(range(len(reverts)))  # so late that none has to wait
    for batch in batches:
        (count,) = {item.reverts for item, _ in batch}
        assert 1 <= len(batch) <= max(1, max_batch >> count)


def test_reverted_receipts_are_alone_after_log2_rounds_and_then_wait_ever_longer() -> None:
    sizes = []
    for count in range(8):
        group = [(waiting(reverts=count), index) for index in range(100)]
        sizes.append(len(divide(group, 10**9, max_batch=100, patience=5)[0]))
    assert sizes == [100, 50, 25, 12, 6, 3, 1, 1]

    def goes(count: int, blocks: int) -> bool:
        pair = (waiting(reverts=count, reverted_in=1_000), 0)
        return bool(divide([pair], 1_000 + blocks, max_batch=100, patience=5))

    assert goes(6, 0)
    assert (goes(7, 4), goes(7, 5)) == (False, True)
    assert (goes(8, 9), goes(8, 10)) == (False, True)


def test_a_key_is_low_when_it_cannot_pay_for_enough_batches() -> None:
    policy = GasPolicy(alarm_batches=3, max_batch=10)
    cost = (BASE_GAS + 10 * RECEIPT_GAS) * 50 * GWEI
    assert affordable_batches(3 * cost, 50 * GWEI, policy) == 3
    assert not is_low(3 * cost, 50 * GWEI, policy)
    assert is_low(3 * cost - 1, 50 * GWEI, policy)
    assert is_low(3 * cost, 51 * GWEI, policy)
