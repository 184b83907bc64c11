import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.amounts import format_usdc, parse_usdc
from settlement.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12.50", 12_500_000), ("0.000001", 1), ("7", 7_000_000), (" 1.5 ", 1_500_000), ("0", 0)],
)
def test_amounts_as_people_write_them_become_base_units(text: str, amount: int) -> None:
    assert parse_usdc(text) == amount


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e6", "1,000", "0.0000001", ".5", "1.", "NaN", "١٢"]
)
def test_what_would_have_to_be_guessed_or_rounded_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an amount of USDC"):
        parse_usdc(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (12_500_000, "12.50"),
        (1, "0.000001"),
        (1_234_567_890_000, "1,234,567.89"),
        (-2_422_500, "-2.4225"),
        (0, "0.00"),
    ],
)
def test_formatting_shows_two_decimals_at_least_and_loses_none(amount: int, text: str) -> None:
    assert format_usdc(amount) == text


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_formatting_and_parsing_are_inverse(amount: int) -> None:
    assert parse_usdc(format_usdc(amount).replace(",", "")) == amount
