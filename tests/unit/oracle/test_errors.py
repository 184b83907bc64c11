"""What endpoints' words mean, and which HTTP status an error gets."""

import pytest

from oracle.attestation.errors import QuoteStale
from oracle.errors import (
    ChainUnavailable,
    Delivery,
    FeeTooLow,
    FundsTooLow,
    JobUnknown,
    MeasurementNotAllowed,
    PeerTokenRefused,
    QuorumNotReached,
    StaleChallenge,
    TransactionRefused,
    delivery_of,
    is_range_refusal,
    is_rate_limit,
)
from oracle.problems import problem_of, status_for
from settlement.errors import RaphaError


@pytest.mark.parametrize(
    ("words", "delivery"),
    [
        ("already known", Delivery.KNOWN),
        ("AlreadyKnown", Delivery.KNOWN),
        ("transaction already imported", Delivery.KNOWN),
        ("nonce too low: next nonce 5, tx nonce 4", Delivery.NONCE_USED),
        ("nonce too low", Delivery.NONCE_USED),
        ("OldNonce", Delivery.NONCE_USED),
    ],
)
def test_words_that_mean_the_transaction_needs_no_sending(words: str, delivery: Delivery) -> None:
    assert delivery_of(words) is delivery


@pytest.mark.parametrize(
    "words",
    [
        "insufficient funds for gas * price + value",
        "replacement transaction underpriced",
        "max fee per gas less than block base fee",
    ],
)
def test_words_that_refuse_the_transaction_for_now(words: str) -> None:
    with pytest.raises(TransactionRefused, match=words.split()[0]) as caught:
        delivery_of(words)
    assert not caught.value.final


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("query returned more than 10000 results", True),
        ("exceed maximum block range: 5000", True),
        ("block range is too wide", True),
        ("header not found", False),
    ],
)
def test_words_that_ask_for_a_smaller_range(words: str, refused: bool) -> None:
    assert is_range_refusal(words) is refused


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (JobUnknown(bytes(32)), 404),
        (PeerTokenRefused(), 401),
        (StaleChallenge("too old"), 409),
        (MeasurementNotAllowed(bytes(32)), 422),
        (QuorumNotReached(1, 2, {}), 503),
        (ChainUnavailable("down"), 503),
        (QuoteStale(3, 1, 2), 503),
    ],
)
def test_status_of_an_error(error: RaphaError, status: int) -> None:
    assert status_for(error) == status
    assert problem_of(error).final == error.final


def test_a_problem_carries_the_errors_data_as_plain_values() -> None:
    problem = problem_of(QuorumNotReached(1, 2, {"peer": "down"}))
    assert problem.code == "QuorumNotReached"
    assert problem.data == {"have": 1, "need": 2, "refusals": "{'peer': 'down'}"}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("insufficient funds for gas * price + value", FundsTooLow),
        ("replacement transaction underpriced", FeeTooLow),
        ("transaction underpriced: gas tip cap 1, minimum needed 25000000000", FeeTooLow),
        ("max fee per gas less than block base fee", FeeTooLow),
        ("txpool is full", TransactionRefused),
    ],
)
def test_a_refused_transactions_cause_is_named(words: str, kind: type[Exception]) -> None:
    with pytest.raises(TransactionRefused) as caught:
        delivery_of(words)
    assert type(caught.value) is kind


def test_too_many_requests_are_no_reason_to_ask_for_fewer_blocks() -> None:
    assert is_rate_limit("Too Many Requests")
    assert not is_range_refusal("too many requests, try again later")
    assert is_range_refusal("too many logs")
