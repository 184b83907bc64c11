"""Digests of what stays off chain: bundles, policies, keys and outputs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from eth_utils import keccak
from pydantic_core import from_json


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: for NaN or infinity.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()


def bundle_digest(files: Mapping[str, bytes]) -> bytes:
    """keccak-256 of a bundle: the canonical JSON of each path with its file's SHA-256.

    The same files give the same digest, whatever archive carried them.
    """
    return keccak(
        canonical_json({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})
    )


def policy_digest(rules: Mapping[str, bytes], parameters: Mapping[str, Any]) -> bytes:
    """keccak-256 of a policy: the canonical JSON of its rules, as SHA-256 by file, and parameters.

    The same files and parameters give the same digest, on any machine.
    """
    files = {path: hashlib.sha256(data).hexdigest() for path, data in rules.items()}
    return keccak(canonical_json({"rules": files, "parameters": parameters}))


def result_key_digest(result_key: bytes) -> bytes:
    """keccak-256 of the 32-byte X25519 public key that the weights are encrypted to."""
    return keccak(result_key)


def output_digest(weights: bytes, metrics: bytes, evidence: bytes | None = None) -> bytes:
    """What a completing receipt commits to: `output_commitment` of the parts' SHA-256.

    `weights` are the safetensors bytes before encryption, `metrics` and `evidence` (of the
    isolation, where the node gives one) canonical JSON.
    """
    parts = (weights, metrics) if evidence is None else (weights, metrics, evidence)
    return output_commitment(*(hashlib.sha256(part).digest() for part in parts))


def output_commitment(weights: bytes, metrics: bytes, evidence: bytes = b"") -> bytes:
    """keccak-256 of SHA-256(weights) ‖ SHA-256(metrics) ‖ SHA-256(evidence), from these digests.

    Without evidence the third is left out, so the two forms never meet.
    """
    return keccak(weights + metrics + evidence)


def delivery_info(*, chain_id: int, vault: str, job_id: bytes) -> bytes:
    """HPKE `info` (RFC 9180) of a delivery: binds it to one job of one vault on one chain."""
    return b"rapha.delivery.v1" + chain_id.to_bytes(32, "big") + bytes.fromhex(vault[2:]) + job_id


def check_nesting(text: str | bytes) -> None:
    """Make sure that a JSON text from outside can be read without exhausting the stack.

    Python's own reader goes by the interpreter's recursion limit, which any library may raise
    beyond what the stack holds; pydantic's has a limit of its own.

    Raises:
        ValueError: when it is nested too deeply, or is not JSON.
    """
    from_json(text)
