import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from oracle.clients.edge.errors import PolicyDenied, TensorsInvalid
from oracle.clients.edge.policy import check_before_release, check_before_training
from oracle.clients.edge.tensors import Tensor, read_header
from oracle.clients.hub.messages import DatasetProfile, OutputPolicy

GOOD = {"w": np.zeros((3, 2), np.float32)}
METRICS = {"holdout_accuracy": 0.97, "loss": [0.5, 0.25]}


def policy(**changes) -> OutputPolicy:
    values = {
        "min_records": 10,
        "max_output_bytes": 10_000,
        "max_tensors": 2,
        "allowed_dtypes": ("F32",),
        "allowed_metrics": ("holdout_accuracy", "loss"),
    }
    return OutputPolicy(**{**values, **changes})


def profile(records: int) -> DatasetProfile:
    return DatasetProfile(
        node_id=1,
        dataset_digest=bytes([1] * 32),
        modality="tabular",
        schema_=("a:float32",),
        record_count=records,
        price_per_record=1,
        price_per_epoch=1,
        description="",
    )


def release(tensors=GOOD, metrics=METRICS, *, records=100, raw=None, **changes) -> None:
    check_before_release(
        policy(**changes),
        save(tensors) if raw is None else raw,
        metrics,
        records=records,
        record_shapes={100, 80, 20},
    )


def test_an_output_that_keeps_to_the_policy_passes():
    release()


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("min_records", {"records": 9}),
        ("max_output_bytes", {"max_output_bytes": 64}),
        ("max_tensors", {"tensors": {"a": GOOD["w"], "b": GOOD["w"], "c": GOOD["w"]}}),
        ("max_tensors", {"tensors": {}}),
        ("allowed_dtypes", {"tensors": {"w": np.zeros(3, np.float64)}}),
        ("allowed_dtypes", {"tensors": {"w": np.zeros(3, np.uint8)}}),
        ("record_shape", {"tensors": {"w": np.zeros((100, 2), np.float32)}}),
        ("record_shape", {"tensors": {"w": np.zeros(80, np.float32)}}),
        ("record_shape", {"tensors": {"w": np.zeros((20, 1), np.float32)}}),
        ("tensor_names", {"tensors": {"w" * 129: np.zeros(3, np.float32)}}),
        ("tensor_names", {"tensors": {"w\n": np.zeros(3, np.float32)}}),
        ("allowed_metrics", {"metrics": {"secret": 1.0}}),
        ("well_formed", {"raw": b"\x80\x04pickle"}),
    ],
)
def test_an_output_that_breaks_a_rule_is_denied_by_it(rule, arguments):
    with pytest.raises(PolicyDenied) as caught:
        release(**arguments)
    assert caught.value.rule == rule


def test_a_denial_repeats_no_name_that_the_bundle_chose():
    with pytest.raises(PolicyDenied) as caught:
        release(metrics={"patient17": 1.0})
    assert "patient17" not in str(caught.value)
    with pytest.raises(PolicyDenied) as caught:
        release({"patient17": np.zeros((100, 2), np.float32)})
    assert "patient17" not in str(caught.value)


def test_a_dataset_smaller_than_the_policy_asks_is_denied_before_training():
    with pytest.raises(PolicyDenied) as caught:
        check_before_training(policy(), profile(9), output_limit=10_000)
    assert caught.value.rule == "min_records"


def test_a_policy_beyond_the_hospitals_limit_is_denied_before_training():
    with pytest.raises(PolicyDenied) as caught:
        check_before_training(policy(), profile(10), output_limit=9_999)
    assert caught.value.rule == "max_output_bytes"


def test_a_policy_within_all_limits_passes_before_training():
    check_before_training(policy(), profile(10), output_limit=10_000)


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
