"""Bytes, addresses and their JSON."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from settlement.types import ZERO_ADDRESS, HexData, parse_address, parse_bytes, to_hex

ADDRESS = "0x4A9883Fc9BCB1e2EaFb7A2326Eb4D52B3c5069b4"


@given(st.binary(max_size=100))
def test_bytes_survive_hex_and_json(value: bytes) -> None:
    assert parse_bytes(to_hex(value)) == value == parse_bytes(bytearray(value))
    adapter: TypeAdapter[bytes] = TypeAdapter(HexData)
    assert adapter.validate_json(adapter.dump_json(value)) == value


@pytest.mark.parametrize("value", ["", "00", "ab", "0X00", "0x0", "0xzz", 5, None, [1], " 0x00"])
def test_anything_else_is_not_bytes(value: Any) -> None:
    with pytest.raises(ValueError, match="hex"):
        parse_bytes(value)


@pytest.mark.parametrize("value", ["0x 00", "0x00 ", "0x00\n11"])
def test_blanks_between_the_digits_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        parse_bytes(value)


@pytest.mark.parametrize("value", [ADDRESS, ADDRESS.lower()])
def test_address_is_given_back_with_its_checksum(value: str) -> None:
    assert parse_address(value) == ADDRESS


@pytest.mark.parametrize("value", ["", "0x", ADDRESS[:-1], ADDRESS + "0", "0x" + "g" * 40, 1, None])
def test_anything_else_is_no_address(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a 20-byte"):
        parse_address(value)


def test_address_without_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a 20-byte"):
        parse_address(ADDRESS[2:])


def test_address_with_a_wrong_checksum_is_refused() -> None:
    """A mistyped digit in a checksummed address must not become another party."""
    with pytest.raises(ValueError, match="checksum"):
        parse_address(ADDRESS.replace("4A98", "4a98"))


def test_zero_address_is_not_a_party() -> None:
    with pytest.raises(ValueError, match="the zero address is not a party"):
        parse_address(ZERO_ADDRESS)
