"""Value types that every model shares: fixed-width bytes, addresses and unsigned integers.

In JSON, bytes are 0x-prefixed hex and addresses are EIP-55 checksummed; in Python they are
``bytes`` and ``str``. Integers are bounded by the width that the contracts store.
"""

import re
from functools import lru_cache
from typing import Annotated, Any

from eth_utils import is_checksum_address, to_checksum_address
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"
ZERO_BYTES32 = bytes(32)

_HEX_DATA = re.compile(r"0x[0-9a-fA-F]*")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def parse_bytes(value: Any) -> bytes:
    """Bytes from ``bytes`` or from a 0x-prefixed hex string.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str) and len(value) % 2 == 0 and _HEX_DATA.fullmatch(value):
        return bytes.fromhex(value[2:])
    raise ValueError("expected bytes or a 0x-prefixed hex string")


def parse_address(value: Any) -> str:
    """The EIP-55 form of a 20-byte hex address.

    Raises:
        ValueError: for anything else, for mixed case that is not the checksum (a mistyped digit),
            and for the zero address, which is never a party.
    """
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError("expected a 20-byte 0x-prefixed address")
    return _checksummed(value)


@lru_cache(maxsize=4096)
def _checksummed(value: str) -> str:
    digits = value[2:]
    if digits not in (digits.lower(), digits.upper()) and not is_checksum_address(value):
        raise ValueError("the address does not match its EIP-55 checksum")
    if value.lower() == ZERO_ADDRESS:
        raise ValueError("the zero address is not a party")
    return to_checksum_address(value)


def to_hex(value: bytes) -> str:
    """0x-prefixed lower-case hex."""
    return "0x" + value.hex()


_HEX_SCHEMA = {"type": "string", "pattern": "^0x([0-9a-fA-F]{2})*$"}
_as_hex = PlainSerializer(to_hex, return_type=str, when_used="json")

HexData = Annotated[bytes, BeforeValidator(parse_bytes), _as_hex, WithJsonSchema(_HEX_SCHEMA)]
Bytes32 = Annotated[
    bytes,
    BeforeValidator(parse_bytes),
    Field(min_length=32, max_length=32),
    _as_hex,
    WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-fA-F]{64}$"}),
]
Signature = Annotated[
    bytes,
    BeforeValidator(parse_bytes),
    Field(min_length=65, max_length=65),
    _as_hex,
    WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-fA-F]{130}$"}),
]
Address = Annotated[
    str,
    BeforeValidator(parse_address),
    WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}),
]
UInt64 = Annotated[int, Field(ge=0, lt=2**64, strict=True)]
UInt128 = Annotated[int, Field(ge=0, lt=2**128, strict=True)]
Usdc = Annotated[int, Field(ge=0, lt=2**64, strict=True)]
"""An amount of USDC in base units (6 decimals): 1_000_000 is one dollar."""


class Frozen(BaseModel):
    """Base of all models: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
