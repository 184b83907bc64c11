"""The P-256 precompile at 0x100 for boa's EVM, which has none. Source: EIP-7951."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boa.vm.py_evm import deregister_raw_precompile, register_raw_precompile
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

ADDRESS = "0x0000000000000000000000000000000000000100"
GAS = 6_900
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def verify(data: bytes) -> bytes:
    """The precompile's answer: a word 1 for a valid signature, nothing otherwise."""
    if len(data) != 160:
        return b""
    digest, r, s, x, y = (data[at : at + 32] for at in range(0, 160, 32))
    numbers = int.from_bytes(r, "big"), int.from_bytes(s, "big")
    if not all(0 < number < ORDER for number in numbers):
        return b""
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
        point.verify(encode_dss_signature(*numbers), digest, ec.ECDSA(Prehashed(SHA256())))
    except (ValueError, InvalidSignature):
        return b""
    return (1).to_bytes(32, "big")


def _call(computation: Any) -> Any:
    computation.consume_gas(GAS, "P256VERIFY")
    computation.output = verify(computation.msg.data_as_bytes)
    return computation


def install() -> None:
    """Put the precompile into every EVM of boa's."""
    register_raw_precompile(ADDRESS, _call, force=True)


@contextmanager
def absent() -> Iterator[None]:
    """A chain that has no such precompile: an account without code at its address."""
    deregister_raw_precompile(ADDRESS)
    try:
        yield
    finally:
        install()
