"""A credential opens with the endorsement key, for the named key alone."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from softtpm import EK, SoftKey

from oracle.attestation.errors import EndorsementKeyUnfit
from oracle.attestation.tpm.credential import (
    check_endorsement_key,
    kdfa,
    kdfe,
    make_credential,
)
from oracle.attestation.tpm.structures import Attributes, Bank, Scheme

NAME = b"\0\x0b" + bytes(range(32))
SECRET = b"\x5a" * 32


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
@pytest.mark.parametrize(("bank", "aes_bits"), [(Bank.SHA256, 128), (Bank.SHA384, 256)])
def test_credential_opens_for_the_named_key(
    eks: dict[str, SoftKey], kind: str, bank: Bank, aes_bits: int
) -> None:
    key = replace(eks[kind], bank=bank, aes_bits=aes_bits, policy=bytes(bank.size))
    credential = make_credential(key.parsed(), NAME, SECRET)
    assert key.activate(NAME, *credential) == SECRET
    with pytest.raises(ValueError, match="integrity"):
        key.activate(NAME[:-1] + b"\0", *credential)


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_no_byte_of_a_credential_can_be_changed(eks: dict[str, SoftKey], kind: str) -> None:
    blob, secret = make_credential(eks[kind].parsed(), NAME, SECRET)
    for offset in range(4, len(blob)):
        changed = blob[:offset] + bytes([blob[offset] ^ 1]) + blob[offset + 1 :]
        with pytest.raises(ValueError, match="integrity"):
            eks[kind].activate(NAME, changed, secret)


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_two_credentials_share_nothing(eks: dict[str, SoftKey], kind: str) -> None:
    first, second = (make_credential(eks[kind].parsed(), NAME, SECRET) for _ in range(2))
    assert first.blob != second.blob
    assert first.encrypted_secret != second.encrypted_secret
    assert SECRET not in first.blob


@given(secret=st.binary(max_size=32), name=st.binary(min_size=34, max_size=66))
def test_every_secret_comes_back(eks: dict[str, SoftKey], secret: bytes, name: bytes) -> None:
    credential = make_credential(eks["ecc"].parsed(), name, secret)
    assert eks["ecc"].activate(name, *credential) == secret


@pytest.mark.parametrize(
    "attribute",
    ["FIXED_TPM", "FIXED_PARENT", "SENSITIVE_DATA_ORIGIN", "RESTRICTED", "DECRYPT"],
)
def test_each_missing_attribute_is_refused(eks: dict[str, SoftKey], attribute: str) -> None:
    key = replace(eks["rsa"], attributes=EK & ~Attributes[attribute])
    with pytest.raises(EndorsementKeyUnfit) as refusal:
        make_credential(key.parsed(), NAME, SECRET)
    assert refusal.value.reason == f"it is not {attribute.lower()}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attributes": EK | Attributes.SIGN}, "it signs"),
        ({"aes_bits": None}, "it has no symmetric algorithm"),
        ({"scheme": Scheme.RSASSA}, "it has a signing scheme"),
        ({"bank": Bank.SHA1, "policy": bytes(20)}, "it uses SHA-1"),
    ],
)
def test_key_that_is_unfit_otherwise_is_refused(
    eks: dict[str, SoftKey], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EndorsementKeyUnfit) as refusal:
        check_endorsement_key(replace(eks["rsa"], **changes).parsed())
    assert refusal.value.reason == reason


def test_key_of_another_size_is_refused() -> None:
    keys = [
        (ec.generate_private_key(ec.SECP384R1()), "it has 384 bits, not 256"),
        (rsa.generate_private_key(65_537, 3072), "it has 3072 bits, not 2048"),
    ]
    for key, reason in keys:
        with pytest.raises(EndorsementKeyUnfit) as refusal:
            check_endorsement_key(SoftKey.ek(key).parsed())
        assert refusal.value.reason == reason


def test_derivations_are_the_specifications() -> None:
    """Written out here from the text: HMAC or hash over counter, label, contexts and length."""
    import hashlib
    import hmac

    first = hmac.digest(b"key", b"\0\0\0\1LABEL\0context\0\0\1\x80", "sha256")
    second = hmac.digest(b"key", b"\0\0\0\2LABEL\0context\0\0\1\x80", "sha256")
    assert kdfa(Bank.SHA256, b"key", b"LABEL", b"context", 384) == (first + second)[:48]
    expected = hashlib.sha256(b"\0\0\0\1" + b"sharedIDENTITY\0uv").digest()
    assert kdfe(Bank.SHA256, b"shared", b"IDENTITY\0", b"u", b"v") == expected
