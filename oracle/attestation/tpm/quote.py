"""A TPM quote's verification: by which key, for which challenge, over which PCRs."""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pydantic import Field

from oracle.attestation.errors import (
    AttestationKeyNotEnrolled,
    AttestationKeyUnfit,
    PcrDigestMismatch,
    PcrSelectionMismatch,
    PcrValuesMismatch,
    TpmNonceMismatch,
    TpmSchemeMismatch,
    TpmSignatureInvalid,
)
from oracle.attestation.tpm.structures import (
    PCR_COUNT,
    Attributes,
    Bank,
    PublicArea,
    Scheme,
    Selection,
    SigningScheme,
    TpmSignature,
    parse_attest,
    parse_public,
    parse_signature,
    selection_text,
)
from settlement.types import Bytes32, Frozen, HexData, UInt64

MAX_STRUCTURE = 2_048
"""Bytes; the longest structure here is the public area of a 4096-bit RSA key, about 600."""

Pcr = Annotated[int, Field(ge=0, lt=PCR_COUNT)]
PcrDigest = Annotated[HexData, Field(max_length=64)]
PcrValues = dict[Bank, dict[Pcr, PcrDigest]]

_REQUIRED = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.SIGN
)


class TpmQuote(Frozen):
    """A quote as a node sends it.

    `ak_public` is the TPM2B_PUBLIC of the attestation key, `attest` the TPMS_ATTEST without a size
    in front, `signature` the TPMT_SIGNATURE, `pcrs` the values of the quoted PCRs by bank.
    """

    ak_public: HexData = Field(max_length=MAX_STRUCTURE)
    attest: HexData = Field(max_length=MAX_STRUCTURE)
    signature: HexData = Field(max_length=MAX_STRUCTURE)
    pcrs: PcrValues


class VerifiedTpmQuote(Frozen):
    """What a genuine TPM quote proves: these PCRs, in the TPM of this key, after this nonce.

    `quote_digest` is the SHA-256 of the attested bytes, which alone cannot be encoded in a second
    way. `clock` is in milliseconds of the TPM's running time. `reset_count` rises with every boot,
    `restart_count` with every resume; both are as they are for keys of the endorsement hierarchy,
    and obfuscated for others. `safe`: no later clock value was reported before.
    """

    ak_name: HexData
    quote_digest: Bytes32
    qualified_signer: HexData
    pcrs: PcrValues
    clock: UInt64
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: UInt64


def check_attestation_key(public: PublicArea) -> SigningScheme:
    """How the key signs, if it signs only what its own TPM generated and can never leave it.

    Raises:
        AttestationKeyUnfit: when an attribute, the scheme or a hash is not as it must be.
    """
    missing = _REQUIRED & ~public.attributes
    if missing:
        raise AttestationKeyUnfit(f"it is not {_names(missing)}")
    if public.attributes & Attributes.DECRYPT:
        raise AttestationKeyUnfit("it decrypts")
    if public.aes_bits is not None:
        raise AttestationKeyUnfit("it has a symmetric algorithm")
    if public.scheme is None:
        raise AttestationKeyUnfit("it prescribes no signing scheme")
    if Bank.SHA1 in (public.bank, public.scheme.bank):
        raise AttestationKeyUnfit("it uses SHA-1")
    return public.scheme


def verify_quote(
    quote: TpmQuote, *, ak_name: bytes, nonce: bytes, selection: Selection
) -> VerifiedTpmQuote:
    """Verify that the enrolled key's TPM had the reported PCR values after `nonce` was made.

    `ak_name` is the enrolled key's name, `selection` exactly the PCRs that were asked for.

    Raises:
        TpmMalformed, NotTpmGenerated, NotATpmQuote: when a part is not what it should be.
        AttestationKeyNotEnrolled: when it is by another key.
        AttestationKeyUnfit: when the key may sign what its TPM did not generate.
        TpmSchemeMismatch, TpmSignatureInvalid: when the key did not sign it so.
        TpmNonceMismatch: when it was made for another nonce.
        PcrSelectionMismatch: when it is over other PCRs than `selection`.
        PcrValuesMismatch, PcrDigestMismatch: when the reported values are not the quoted ones.
    """
    public = parse_public(quote.ak_public)
    if not hmac.compare_digest(public.name, ak_name):
        raise AttestationKeyNotEnrolled(public.name, ak_name)
    scheme = check_attestation_key(public)
    signature = parse_signature(quote.signature)
    if signature.scheme != scheme:
        raise TpmSchemeMismatch(str(signature.scheme), str(scheme))
    _check_signature(public, signature, quote.attest)

    attest = parse_attest(quote.attest)
    if not hmac.compare_digest(attest.extra_data, nonce):
        raise TpmNonceMismatch(attest.extra_data, nonce)
    if attest.selection != dict(selection):
        raise PcrSelectionMismatch(selection_text(attest.selection), selection_text(selection))
    values = _selected_values(attest.selection, quote.pcrs)
    if not hmac.compare_digest(scheme.bank.digest(values), attest.pcr_digest):
        raise PcrDigestMismatch
    return VerifiedTpmQuote(
        ak_name=public.name,
        quote_digest=sha256(quote.attest).digest(),
        qualified_signer=attest.qualified_signer,
        pcrs=quote.pcrs,
        clock=attest.clock,
        reset_count=attest.reset_count,
        restart_count=attest.restart_count,
        safe=attest.safe,
        firmware_version=attest.firmware_version,
    )


def _names(attributes: Attributes) -> str:
    return ", ".join(str(flag.name).lower() for flag in Attributes if flag & attributes)


def _check_signature(public: PublicArea, signature: TpmSignature, signed: bytes) -> None:
    algorithm = signature.scheme.bank.hash
    try:
        if isinstance(public.key, ec.EllipticCurvePublicKey):
            r, s = (int.from_bytes(part, "big") for part in signature.parts)
            public.key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(algorithm))
        else:
            _check_rsa_signature(public.key, signature, signed)
    except InvalidSignature as error:
        raise TpmSignatureInvalid from error


def _check_rsa_signature(key: rsa.RSAPublicKey, signature: TpmSignature, signed: bytes) -> None:
    algorithm = signature.scheme.bank.hash
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if signature.scheme.scheme is Scheme.RSAPSS:
        # TPMs differ in how much salt they take: the digest's length, or all that fits.
        scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
    key.verify(signature.parts[0], signed, scheme, algorithm)


def _selected_values(selection: Selection, reported: Mapping[Bank, Mapping[int, bytes]]) -> bytes:
    if {bank: frozenset(values) for bank, values in reported.items()} != dict(selection):
        raise PcrValuesMismatch("they are not of the quoted PCRs")
    joined = []
    for bank, pcrs in selection.items():
        for pcr in sorted(pcrs):
            value = reported[bank][pcr]
            if len(value) != bank.size:
                raise PcrValuesMismatch(f"{bank} PCR {pcr} has {len(value)} bytes")
            joined.append(value)
    return b"".join(joined)
