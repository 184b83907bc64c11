"""The header of a safetensors file, read without any framework and without trusting it."""

import json
import math
from typing import NamedTuple

from oracle.clients.edge.errors import TensorsInvalid
from settlement.digests import check_nesting

# Bytes per element; the names are the format's own (huggingface/safetensors, "Format").
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
MAX_HEADER_BYTES = 1 << 20


class Tensor(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_header(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Holds the file to its strictest reading: the tensors cover the data without gap or overlap, and
    there is no free-form metadata, so that no byte is left that is not a tensor's.

    Raises:
        TensorsInvalid: for anything else.
    """
    if len(data) < 8:
        raise TensorsInvalid("it is shorter than its length field")
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, MAX_HEADER_BYTES):
        raise TensorsInvalid(f"its header of {size} bytes is longer than allowed")
    try:
        check_nesting(data[8 : 8 + size])
        header = json.loads(data[8 : 8 + size], object_pairs_hook=_unique)
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise TensorsInvalid("its header is not JSON with unique names") from error
    if not isinstance(header, dict):
        raise TensorsInvalid("its header is not an object")
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        tensor, span = _entry(name, entry)
        tensors[name] = tensor
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise TensorsInvalid("its tensors leave a gap or overlap")
        end = stop
    if end != len(data) - 8 - size:
        raise TensorsInvalid("its tensors do not cover its data")
    return tensors


def _entry(name: str, entry: object) -> tuple[Tensor, tuple[int, int]]:
    if name == "__metadata__":
        raise TensorsInvalid("it carries metadata besides tensors")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise TensorsInvalid("a tensor has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BYTES:
        raise TensorsInvalid("a tensor has an unknown dtype")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise TensorsInvalid("a tensor's shape or offsets are not natural numbers")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise TensorsInvalid("a tensor's shape does not fit its bytes")
    return Tensor(dtype, tuple(shape)), (offsets[0], offsets[1])


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result
