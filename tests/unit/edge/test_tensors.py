"""The header of a safetensors file, held to its strictest reading."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from oracle.clients.edge.errors import TensorsInvalid
from oracle.clients.edge.tensors import Tensor, read_header


def crafted(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_read_header_gives_dtype_and_shape_of_each_tensor():
    data = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)})
    assert read_header(data) == {"a": Tensor("F32", (2, 3)), "b": Tensor("I64", ())}


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"short", "shorter than its length field"),
        (b"\xff" * 8 + b"{}", "longer than allowed"),
        (crafted(b"nope"), "not JSON"),
        (crafted(b'{"a":1,"a":2}'), "not JSON with unique names"),
        (crafted([]), "not an object"),
        (crafted({"__metadata__": {"patient": "17"}}), "metadata"),
        (crafted({"a": 1}), "other fields"),
        (crafted({"a": {**entry(), "note": "17"}}, bytes(4)), "other fields"),
        (crafted({"a": entry("Q4")}, bytes(4)), "unknown dtype"),
        (crafted({"a": entry(shape=(-1,))}, bytes(4)), "not natural numbers"),
        (crafted({"a": entry(shape=(True,))}, bytes(4)), "not natural numbers"),
        (crafted({"a": entry(offsets=(0, 8))}, bytes(8)), "does not fit its bytes"),
        (crafted({"a": entry(offsets=(4, 8))}, bytes(8)), "gap or overlap"),
        (crafted({"a": entry(), "b": entry()}, bytes(4)), "gap or overlap"),
        (crafted({"a": entry()}, bytes(5)), "do not cover"),
    ],
)
def test_bytes_that_are_not_strictly_safetensors_are_refused(data, detail):
    with pytest.raises(TensorsInvalid, match=detail):
        read_header(data)


@given(st.binary(max_size=200), st.integers(0, 40))
def test_no_bytes_raise_anything_but_the_named_error(data, size):
    for candidate in (data, size.to_bytes(8, "little") + data):
        with contextlib.suppress(TensorsInvalid):
            read_header(candidate)
