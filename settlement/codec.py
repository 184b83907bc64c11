"""Calldata and logs by the contracts' ABIs, for who handles hundreds of them a second.

web3 looks at every value several times, which is for what people type; these go straight to
`eth_abi`, whose answers are the same at a fifth of the time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eth_abi.codec import ABICodec
from eth_abi.decoding import UnsignedIntegerDecoder
from eth_abi.encoding import UnsignedIntegerEncoder
from eth_abi.registry import BaseEquals, registry
from eth_utils import to_checksum_address
from eth_utils.abi import (
    collapse_if_tuple,
    event_abi_to_log_topic,
    function_abi_to_4byte_selector,
    get_abi_input_types,
    get_abi_output_types,
)

from settlement.contracts import Claim, Outcome, artifact, check_batch

# Once ape is imported, eth_abi's shared registry fills up a number that was cut short; here it is
# refused.
_registry = registry.copy()  # type: ignore[no-untyped-call]
_registry.unregister("uint")
_is_uint = BaseEquals("uint")  # type: ignore[no-untyped-call]
_registry.register(_is_uint, UnsignedIntegerEncoder, UnsignedIntegerDecoder, label="uint")
_codec = ABICodec(_registry)

EMITTING = ("RaphaClearingVault", "RaphaNodeRegistry", "EnclaveRegistry")


@dataclass(frozen=True)
class _Function:
    selector: bytes
    takes: list[str]
    answers: list[str]


@cache
def _function(name: str) -> _Function:
    (found,) = (
        entry
        for entry in artifact("RaphaClearingVault").abi
        if entry["type"] == "function" and entry["name"] == name
    )
    return _Function(
        function_abi_to_4byte_selector(found),  # type: ignore[arg-type]
        get_abi_input_types(found),  # type: ignore[arg-type]
        get_abi_output_types(found),  # type: ignore[arg-type]
    )


def _settling(count: int) -> _Function:
    return _function("settle" if count == 1 else "settle_many")


def settle_data(claims: Sequence[Claim]) -> bytes:
    """Calldata of `Settlement.settle_call`.

    Raises:
        InvalidInput: for more than `MAX_BATCH` claims, or none.
    """
    check_batch(claims)
    function = _settling(len(claims))
    values = [claim.abi_value() for claim in claims]
    return function.selector + _codec.encode(
        function.takes, values if len(values) == 1 else [values]
    )


def settle_outcomes(answer: bytes, count: int) -> list[Outcome]:
    """What the vault answered for `count` claims.

    Raises:
        eth_abi.exceptions.DecodingError, ValueError: when it is not such an answer.
    """
    (found,) = _codec.decode(_settling(count).answers, answer)
    return [Outcome(code) for code in ([found] if count == 1 else found)]


class EventCodec:
    """One event of our contracts; decodes its logs. `name` is the contract's own."""

    def __init__(self, abi: Mapping[str, Any]) -> None:
        self.name = str(abi["name"])
        self.topic = bytes(event_abi_to_log_topic(abi))  # type: ignore[arg-type]
        self._inputs: Sequence[Mapping[str, Any]] = abi["inputs"]
        self._indexed = [_kind(entry) for entry in self._inputs if entry["indexed"]]
        self._data = [_kind(entry) for entry in self._inputs if not entry["indexed"]]

    def decode(self, topics: Sequence[bytes], data: bytes) -> dict[str, Any]:
        """The arguments by name: addresses checksummed, a struct as a dictionary of its fields.

        Raises:
            eth_abi.exceptions.DecodingError, ValueError: when it is no such log.
        """
        if len(topics) != 1 + len(self._indexed):
            raise ValueError(f"a log of {self.name} has {1 + len(self._indexed)} topics")
        indexed = iter(_codec.decode(self._indexed, b"".join(topics[1:])))
        others = iter(_codec.decode(self._data, data))
        return {
            entry["name"]: _value(entry, next(indexed if entry["indexed"] else others))
            for entry in self._inputs
        }


def _kind(entry: Mapping[str, Any]) -> str:
    return str(collapse_if_tuple(entry))  # type: ignore[arg-type]


def _value(entry: Mapping[str, Any], value: Any) -> Any:
    if entry["type"] == "address":
        return to_checksum_address(value)
    if entry["type"] == "tuple":
        parts = entry["components"]
        return {part["name"]: _value(part, v) for part, v in zip(parts, value, strict=True)}
    return value


@cache
def event_codecs() -> dict[bytes, EventCodec]:
    """The codec of each event of our contracts, by its topic."""
    found = (
        EventCodec(entry)
        for contract in EMITTING
        for entry in artifact(contract).abi
        if entry["type"] == "event"
    )
    return {codec.topic: codec for codec in found}
