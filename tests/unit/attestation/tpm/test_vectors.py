"""Quotes that a TPM made give their expected result, and no byte of them can be changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from oracle.attestation.errors import (
    AttestationKeyNotEnrolled,
    PcrDigestMismatch,
    PcrSelectionMismatch,
    TpmMalformed,
    TpmNonceMismatch,
    TpmRefused,
    TpmSchemeMismatch,
    TpmSignatureInvalid,
    TpmTrailingBytes,
)
from oracle.attestation.tpm.quote import TpmQuote, check_attestation_key, verify_quote
from oracle.attestation.tpm.structures import Bank, Scheme, parse_attest, parse_public

Flipped = Callable[[bytes, int], bytes]


class Vector:
    """One quote of the vectors, with what it must give."""

    def __init__(self, directory: Path, kind: str) -> None:
        expected = json.loads((directory / "expected.json").read_text())
        self.nonce = bytes.fromhex(expected["nonce"])
        values = {int(pcr): bytes.fromhex(value) for pcr, value in expected["pcrs"].items()}
        self.pcrs = {Bank.SHA256: values}
        self.selection = {Bank.SHA256: frozenset(values)}
        self.name = (directory / f"{kind}.ak.name").read_bytes()
        self.pem = (directory / f"{kind}.ak.pem").read_bytes()
        self.quote = TpmQuote(
            ak_public=(directory / f"{kind}.ak.pub").read_bytes(),
            attest=(directory / f"{kind}.quote.msg").read_bytes(),
            signature=(directory / f"{kind}.quote.sig").read_bytes(),
            pcrs=self.pcrs,
        )

    def verify(self, **changes: bytes) -> bytes:
        quote = self.quote.model_copy(update=changes)
        verified = verify_quote(
            quote, ak_name=self.name, nonce=self.nonce, selection=self.selection
        )
        return verified.quote_digest


@pytest.fixture(params=["ecc", "rsa"])
def vector(request: pytest.FixtureRequest, vectors: Path) -> Vector:
    return Vector(vectors / "tpm", request.param)


def test_quote_gives_its_expected_result(vector: Vector) -> None:
    verified = verify_quote(
        vector.quote, ak_name=vector.name, nonce=vector.nonce, selection=vector.selection
    )
    assert verified.ak_name == vector.name
    assert verified.pcrs == vector.pcrs
    assert verified.reset_count == 1
    assert verified.restart_count == 0
    assert verified.safe
    assert verified.clock == parse_attest(vector.quote.attest).clock > 0
    assert verified.firmware_version == 0x20191023_00163636


def test_public_area_is_the_key_that_the_tools_wrote(vector: Vector) -> None:
    public = parse_public(vector.quote.ak_public)
    assert public.name == vector.name
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    assert public.key.public_bytes(*form) == load_pem_public_key(vector.pem).public_bytes(*form)
    assert check_attestation_key(public).scheme in (Scheme.ECDSA, Scheme.RSASSA)


def test_every_attested_byte_counts(vector: Vector, flipped: Flipped) -> None:
    for offset in range(len(vector.quote.attest)):
        with pytest.raises(TpmSignatureInvalid):
            vector.verify(attest=flipped(vector.quote.attest, offset))


def test_every_byte_of_the_signature_counts(vector: Vector, flipped: Flipped) -> None:
    for offset in range(len(vector.quote.signature)):
        with pytest.raises((TpmMalformed, TpmSchemeMismatch, TpmSignatureInvalid)):
            vector.verify(signature=flipped(vector.quote.signature, offset))


def test_every_byte_of_the_public_area_counts(vector: Vector, flipped: Flipped) -> None:
    for offset in range(len(vector.quote.ak_public)):
        with pytest.raises((TpmMalformed, AttestationKeyNotEnrolled)):
            vector.verify(ak_public=flipped(vector.quote.ak_public, offset))


def test_every_byte_of_the_reported_values_counts(vector: Vector, flipped: Flipped) -> None:
    for pcr, value in vector.pcrs[Bank.SHA256].items():
        for offset in range(32):
            other = {**vector.pcrs[Bank.SHA256], pcr: flipped(value, offset)}
            quote = vector.quote.model_copy(update={"pcrs": {Bank.SHA256: other}})
            with pytest.raises(PcrDigestMismatch):
                verify_quote(
                    quote, ak_name=vector.name, nonce=vector.nonce, selection=vector.selection
                )


def test_every_byte_of_the_nonce_counts(vector: Vector, flipped: Flipped) -> None:
    for offset in range(len(vector.nonce)):
        with pytest.raises(TpmNonceMismatch):
            verify_quote(
                vector.quote,
                ak_name=vector.name,
                nonce=flipped(vector.nonce, offset),
                selection=vector.selection,
            )


@pytest.mark.parametrize("changed", [{0, 1, 7}, {0, 1, 7, 16, 23}, {0, 1, 7, 17}, set()])
def test_other_selection_is_refused(vector: Vector, changed: set[int]) -> None:
    with pytest.raises(PcrSelectionMismatch) as refusal:
        verify_quote(
            vector.quote,
            ak_name=vector.name,
            nonce=vector.nonce,
            selection={Bank.SHA256: frozenset(changed)},
        )
    assert refusal.value.found == "sha256:0,1,7,16"


def test_trailing_bytes_are_refused_in_each_part(vector: Vector) -> None:
    for part, structure in (("ak_public", "TPM2B_PUBLIC"), ("signature", "TPMT_SIGNATURE")):
        data = getattr(vector.quote, part)
        with pytest.raises(TpmTrailingBytes) as refusal:
            vector.verify(**{part: data + b"\0"})
        assert (refusal.value.structure, refusal.value.end) == (structure, len(data))
        assert refusal.value.length == len(data) + 1
    with pytest.raises(TpmSignatureInvalid):
        vector.verify(attest=vector.quote.attest + b"\0")


def test_each_part_cut_anywhere_is_refused(vector: Vector) -> None:
    for part in ("ak_public", "attest", "signature"):
        data = getattr(vector.quote, part)
        for end in range(0, len(data), 3):
            with pytest.raises(TpmRefused):
                vector.verify(**{part: data[:end]})


def test_mirrored_signature_makes_no_second_identity(vectors: Path) -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    vector = Vector(vectors / "tpm", "ecc")
    signature = vector.quote.signature
    s = int.from_bytes(signature[-32:], "big")
    mirrored = signature[:-32] + (order - s).to_bytes(32, "big")
    assert mirrored != signature
    assert vector.verify(signature=mirrored) == vector.verify()
