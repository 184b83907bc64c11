"""A quote counts by the enrolled key, for its nonce, over its PCRs; all else is refused by name."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from softtpm import AK, SoftKey, attest

from oracle.attestation.errors import (
    AttestationKeyNotEnrolled,
    AttestationKeyUnfit,
    NotATpmQuote,
    NotTpmGenerated,
    PcrDigestMismatch,
    PcrSelectionMismatch,
    PcrValuesMismatch,
    TpmMalformed,
    TpmNonceMismatch,
    TpmRefused,
    TpmSchemeMismatch,
    TpmSignatureInvalid,
    TpmTrailingBytes,
)
from oracle.attestation.tpm.quote import (
    TpmQuote,
    VerifiedTpmQuote,
    check_attestation_key,
    verify_quote,
)
from oracle.attestation.tpm.structures import Attributes, Bank

NONCE = bytes(range(32))
PCRS = {Bank.SHA256: {8: b"\x08" * 32, 11: b"\x0b" * 32}, Bank.SHA384: {9: b"\x09" * 48}}
KINDS = ["ecdsa", "ecdsa-p384", "rsassa", "rsapss"]


def verify(key: SoftKey, quote: TpmQuote, **changes: Any) -> VerifiedTpmQuote:
    arguments = {
        "ak_name": key.parsed().name,
        "nonce": NONCE,
        "selection": {bank: frozenset(of) for bank, of in PCRS.items()},
    }
    return verify_quote(quote, **{**arguments, **changes})


def resigned(key: SoftKey, quote: TpmQuote, attested: bytes) -> TpmQuote:
    return quote.model_copy(update={"attest": attested, "signature": key.sign(attested)})


@pytest.mark.parametrize("kind", KINDS)
def test_quote_of_each_kind_verifies(aks: dict[str, SoftKey], kind: str) -> None:
    key = aks[kind]
    verified = verify(key, key.quote(NONCE, PCRS, clock=5, resets=6, restarts=7, safe=0))
    assert verified.pcrs == PCRS
    assert (verified.clock, verified.reset_count, verified.restart_count) == (5, 6, 7)
    assert not verified.safe
    assert verified.ak_name == key.parsed().name


def test_banks_count_in_the_quotes_own_order(ak: SoftKey) -> None:
    backwards = dict(reversed(PCRS.items()))
    quote = ak.quote(NONCE, backwards)
    assert verify(ak, quote).pcrs == PCRS
    assert verify(ak, quote.model_copy(update={"pcrs": PCRS})).pcrs == PCRS


@pytest.mark.parametrize("attribute", ["FIXED_TPM", "FIXED_PARENT", "SENSITIVE_DATA_ORIGIN",
                                       "RESTRICTED", "SIGN"])  # fmt: skip
def test_each_missing_attribute_is_refused(ak: SoftKey, attribute: str) -> None:
    key = replace(ak, attributes=AK & ~Attributes[attribute])
    with pytest.raises(AttestationKeyUnfit) as refusal:
        verify(key, key.quote(NONCE, PCRS))
    assert refusal.value.reason == f"it is not {attribute.lower()}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attributes": AK | Attributes.DECRYPT}, "it decrypts"),
        ({"aes_bits": 128}, "it has a symmetric algorithm"),
        ({"scheme": None}, "it prescribes no signing scheme"),
        ({"bank": Bank.SHA1}, "it uses SHA-1"),
        ({"hash": Bank.SHA1}, "it uses SHA-1"),
    ],
)
def test_key_that_is_unfit_otherwise_is_refused(
    ak: SoftKey, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AttestationKeyUnfit) as refusal:
        check_attestation_key(replace(ak, **changes).parsed())
    assert refusal.value.reason == reason


def test_key_of_another_name_is_refused(aks: dict[str, SoftKey]) -> None:
    other = aks["rsassa"]
    with pytest.raises(AttestationKeyNotEnrolled) as refusal:
        verify(aks["ecdsa"], other.quote(NONCE, PCRS))
    assert refusal.value.name == other.parsed().name
    assert refusal.value.enrolled == aks["ecdsa"].parsed().name


def test_same_key_with_other_attributes_has_another_name(ak: SoftKey) -> None:
    other = replace(ak, attributes=AK | Attributes.NO_DA)
    with pytest.raises(AttestationKeyNotEnrolled):
        verify(ak, other.quote(NONCE, PCRS))


@pytest.mark.parametrize("kind", KINDS)
def test_signature_over_something_else_is_refused(aks: dict[str, SoftKey], kind: str) -> None:
    key = aks[kind]
    quote = key.quote(NONCE, PCRS)
    with pytest.raises(TpmSignatureInvalid):
        verify(key, quote.model_copy(update={"signature": key.sign(quote.attest + b"\0")}))


def test_signature_by_another_key_of_the_kind_is_refused(
    ak: SoftKey, eks: dict[str, SoftKey]
) -> None:
    stranger = replace(ak, key=eks["ecc"].key)
    quote = ak.quote(NONCE, PCRS)
    with pytest.raises(TpmSignatureInvalid):
        verify(ak, quote.model_copy(update={"signature": stranger.sign(quote.attest)}))


def test_signature_of_another_hash_is_refused(ak: SoftKey) -> None:
    quote = ak.quote(NONCE, PCRS)
    weaker = replace(ak, hash=Bank.SHA1).sign(quote.attest)
    with pytest.raises(TpmSchemeMismatch) as refusal:
        verify(ak, quote.model_copy(update={"signature": weaker}))
    assert (refusal.value.found, refusal.value.expected) == (
        "ECDSA with sha1",
        "ECDSA with sha256",
    )


def test_signed_bytes_that_no_tpm_made_are_refused(ak: SoftKey) -> None:
    quote = ak.quote(NONCE, PCRS)
    forged = attest(NONCE, PCRS, b"", magic=0xFF544348)
    with pytest.raises(NotTpmGenerated):
        verify(ak, resigned(ak, quote, forged))
    with pytest.raises(NotATpmQuote):
        verify(ak, resigned(ak, quote, attest(NONCE, PCRS, b"", kind=0x8017)))


def test_signed_trailing_bytes_are_refused(ak: SoftKey) -> None:
    quote = ak.quote(NONCE, PCRS)
    with pytest.raises(TpmTrailingBytes) as refusal:
        verify(ak, resigned(ak, quote, quote.attest + b"\0"))
    assert refusal.value.structure == "TPMS_ATTEST"


@pytest.mark.parametrize("nonce", [b"", NONCE[:31], NONCE + b"\0", bytes(32)])
def test_other_nonce_is_refused(ak: SoftKey, nonce: bytes) -> None:
    with pytest.raises(TpmNonceMismatch) as refusal:
        verify(ak, ak.quote(nonce, PCRS))
    assert (refusal.value.found, refusal.value.expected) == (nonce, NONCE)


@pytest.mark.parametrize(
    "pcrs",
    [
        {Bank.SHA256: PCRS[Bank.SHA256]},
        {**PCRS, Bank.SHA512: {8: bytes(64)}},
        {**PCRS, Bank.SHA512: {}},
        {**PCRS, Bank.SHA256: {8: bytes(32)}},
        {},
    ],
    ids=["bank less", "bank more", "empty bank more", "PCR less", "nothing"],
)
def test_other_selection_is_refused(ak: SoftKey, pcrs: dict[Bank, dict[int, bytes]]) -> None:
    with pytest.raises(PcrSelectionMismatch) as refusal:
        verify(ak, ak.quote(NONCE, pcrs))
    assert refusal.value.expected == "sha256:8,11+sha384:9"


@pytest.mark.parametrize(
    ("pcrs", "reason"),
    [
        ({}, "they are not of the quoted PCRs"),
        ({**PCRS, Bank.SHA384: {}}, "they are not of the quoted PCRs"),
        ({**PCRS, Bank.SHA512: {1: bytes(64)}}, "they are not of the quoted PCRs"),
        ({**PCRS, Bank.SHA384: {9: bytes(32)}}, "sha384 PCR 9 has 32 bytes"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    ak: SoftKey, pcrs: dict[Bank, dict[int, bytes]], reason: str
) -> None:
    with pytest.raises(PcrValuesMismatch) as refusal:
        verify(ak, ak.quote(NONCE, PCRS).model_copy(update={"pcrs": pcrs}))
    assert refusal.value.reason == reason


def test_values_cannot_be_shifted_between_pcrs(ak: SoftKey) -> None:
    swapped = {**PCRS, Bank.SHA256: {8: b"\x0b" * 32, 11: b"\x08" * 32}}
    with pytest.raises(PcrDigestMismatch):
        verify(ak, ak.quote(NONCE, PCRS).model_copy(update={"pcrs": swapped}))
    quote = ak.quote(NONCE, PCRS)
    cut = {**PCRS, Bank.SHA256: {8: b"\x08" * 31, 11: b"\x08" + b"\x0b" * 32}}
    with pytest.raises(PcrValuesMismatch):
        verify(ak, quote.model_copy(update={"pcrs": cut}))


@pytest.mark.parametrize("field", ["ak_public", "attest", "signature"])
def test_oversized_part_is_not_even_read(ak: SoftKey, field: str) -> None:
    given_quote = ak.quote(NONCE, PCRS).model_dump()
    with pytest.raises(ValidationError, match=field):
        TpmQuote.model_validate({**given_quote, field: bytes(2_049)})


@pytest.mark.parametrize("pcr", [-1, 24])
def test_pcr_that_does_not_exist_is_not_even_read(ak: SoftKey, pcr: int) -> None:
    given_quote = ak.quote(NONCE, PCRS).model_dump()
    with pytest.raises(ValidationError, match="pcrs"):
        TpmQuote.model_validate({**given_quote, "pcrs": {"sha256": {pcr: bytes(32)}}})


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_bytes_make_the_verifier_fail_otherwise(
    aks: dict[str, SoftKey], kind: str, data: st.DataObject
) -> None:
    key = aks[kind]
    quote = key.quote(NONCE, PCRS)
    field = data.draw(st.sampled_from(["ak_public", "attest", "signature"]))
    genuine = getattr(quote, field)
    cut = data.draw(st.integers(0, len(genuine)))
    other = genuine[:cut] + data.draw(st.binary(max_size=300))
    try:
        verify(key, quote.model_copy(update={field: other}))
    except (TpmMalformed, AttestationKeyNotEnrolled):
        return
    except TpmRefused:
        assert field != "ak_public", "more was read before the key was known"
        return
    assert other == genuine
