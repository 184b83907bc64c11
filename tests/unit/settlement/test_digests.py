"""Digests of what stays off chain."""

import hashlib
import math

import pytest
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from settlement.digests import (
    bundle_digest,
    canonical_json,
    output_digest,
    policy_digest,
    result_key_digest,
)

files = st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=50), max_size=5)


def test_canonical_json_is_one_text() -> None:
    assert canonical_json({"b": [1, 2], "a": {"é": None}}) == b'{"a":{"\\u00e9":null},"b":[1,2]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": value})


@given(files)
def test_order_of_files_does_not_matter(bundle: dict[str, bytes]) -> None:
    assert bundle_digest(dict(reversed(bundle.items()))) == bundle_digest(bundle)


@given(files, files)
def test_different_bundles_have_different_digests(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    assert (bundle_digest(a) == bundle_digest(b)) == (a == b)


def test_bundle_digest_binds_names_and_contents() -> None:
    expected = keccak(b'{"a.py":"' + hashlib.sha256(b"x").hexdigest().encode() + b'"}')
    assert bundle_digest({"a.py": b"x"}) == expected


def test_policy_and_key_digests_are_keccak() -> None:
    rule = hashlib.sha256(b"package a").hexdigest().encode()
    expected = keccak(b'{"parameters":{"max":1},"rules":{"a.rego":"' + rule + b'"}}')
    assert policy_digest({"a.rego": b"package a"}, {"max": 1}) == expected
    assert result_key_digest(b"\x01" * 32) == keccak(b"\x01" * 32)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_output_digest_keeps_weights_and_metrics_apart(weights: bytes, metrics: bytes) -> None:
    digest = output_digest(weights, metrics)
    expected = keccak(hashlib.sha256(weights).digest() + hashlib.sha256(metrics).digest())
    assert digest == expected
    assert (output_digest(metrics, weights) == digest) == (weights == metrics)
    assert output_digest(weights + b"x", metrics) != digest
    assert output_digest(weights, metrics, b"") != digest
    assert output_digest(weights, metrics, b"e") != output_digest(weights, metrics, b"f")
