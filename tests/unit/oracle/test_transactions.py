"""Bids, their replacements, and signing."""

from eth_account import Account
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st
from unit.oracle.bench import DEPLOYMENT, actor

from oracle.facts import Call, CallKind, Fees
from oracle.signers.local import LocalKey
from oracle.transactions import Bid, FeePolicy, signed_row

GWEI = 10**9
POLICY = FeePolicy(min_tip=25 * GWEI, max_fee=500 * GWEI)
wei = st.integers(0, 10**13)


def test_the_first_bid_has_room_for_the_base_fee_to_double() -> None:
    bid = POLICY.first(Fees(base_fee=100 * GWEI, tip=30 * GWEI))
    assert bid == Bid(max_fee=230 * GWEI, tip=30 * GWEI)


def test_the_least_tip_is_bid_where_others_bid_less() -> None:
    assert POLICY.first(Fees(base_fee=0, tip=1)).tip == 25 * GWEI


@given(wei, wei)
def test_no_bid_is_above_the_cap(base_fee: int, tip: int) -> None:
    bid = POLICY.first(Fees(base_fee, tip))
    assert bid.tip <= bid.max_fee <= POLICY.max_fee


@given(wei, wei, wei, wei)
def test_a_replacement_offers_an_eighth_more_of_both_or_is_not_made(
    base_fee: int, tip: int, later_base_fee: int, later_tip: int
) -> None:
    old = POLICY.first(Fees(base_fee, tip))
    new = POLICY.higher(old, Fees(later_base_fee, later_tip))
    if new is None:
        needed = max(old.max_fee * 9 / 8, old.tip * 9 / 8)
        fresh = POLICY.first(Fees(later_base_fee, later_tip))
        assert needed > POLICY.max_fee or fresh.max_fee * 9 / 8 > POLICY.max_fee - 1
    else:
        assert new.max_fee * 8 >= old.max_fee * 9
        assert new.tip * 8 >= old.tip * 9
        assert new.tip <= new.max_fee <= POLICY.max_fee


def test_the_same_content_is_signed_to_the_same_transaction() -> None:
    def row(nonce: int) -> tuple[bytes, bytes]:
        signed = signed_row(
            Call(CallKind.SETTLE, DEPLOYMENT.vault, b"data"),
            signer=LocalKey(actor("relayer")),
            chain_id=1,
            nonce=nonce,
            attempt=1,
            gas=100,
            bid=Bid(2, 1),
            since=0,
        )
        return signed.hash, signed.raw

    assert row(1) == row(1)
    assert row(1) != row(2)
    assert row(1)[0] == keccak(row(1)[1])
    assert Account.recover_transaction(row(1)[1]) == actor("relayer").address
