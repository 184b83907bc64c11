"""Endorsement certificates: a TPM vendor's word that a key is in a genuine TPM.

Source: TCG EK Credential Profile for TPM Family 2.0, and RFC 5280.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import verification

from oracle.attestation.errors import EndorsementCertificateRefused
from oracle.attestation.tpm.structures import PublicArea
from settlement.errors import InvalidInput

EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate: the extended key usage of endorsement certificates."""

MAX_INTERMEDIATES = 4

_UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that are not a certificate."""


@dataclass(frozen=True)
class Endorsement:
    """A verified endorsement.

    `certificate_digest` is the SHA-256 of the certificate. `key_digest` is that of the key
    (SubjectPublicKeyInfo), by which a TPM is known again under another certificate. The chain is
    valid up to, but not at, `valid_until` (Unix seconds).
    """

    certificate_digest: bytes
    key_digest: bytes
    valid_until: int


class EndorsementRoots:
    """The TPM vendors whose word is taken, and single keys whose word is not."""

    def __init__(
        self, roots: Sequence[bytes], *, revoked_keys: frozenset[bytes] = frozenset()
    ) -> None:
        """`roots` are DER certificates; `revoked_keys` are key digests of revoked TPMs.

        Raises:
            InvalidInput: when there is no root, or one is not a certificate.
        """
        if not roots:
            raise InvalidInput("at least one endorsement root is needed")
        try:
            certificates = [x509.load_der_x509_certificate(root) for root in roots]
        except _UNREADABLE as error:
            raise InvalidInput(f"an endorsement root is not a certificate: {error}") from error
        self._store = verification.Store(certificates)
        self._revoked_keys = revoked_keys

    def is_revoked(self, key_digest: bytes) -> bool:
        """Whether the TPM with this endorsement key's word is not taken (any more)."""
        return key_digest in self._revoked_keys

    def verify(
        self, certificate: bytes, intermediates: Sequence[bytes], public: PublicArea, now: int
    ) -> Endorsement:
        """Verify that `certificate` (DER) is up to a root at `now` and is for the key `public`.

        Raises:
            EndorsementCertificateRefused: when it is not; its `part` says what failed.
        """
        leaf = _certificate(certificate)
        chain = self._chain(leaf, [_certificate(der) for der in intermediates], now)
        _check_usage(leaf, public)
        key = _encoded(leaf)
        if key != public.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ):
            raise EndorsementCertificateRefused("key", "it is for another key")
        key_digest = sha256(key).digest()
        if self.is_revoked(key_digest):
            raise EndorsementCertificateRefused("revocation", "the key is revoked here")
        return Endorsement(
            certificate_digest=sha256(certificate).digest(),
            key_digest=key_digest,
            valid_until=min(int(link.not_valid_after_utc.timestamp()) for link in chain),
        )

    def _chain(
        self, leaf: x509.Certificate, intermediates: list[x509.Certificate], now: int
    ) -> list[x509.Certificate]:
        verifier = (
            verification.PolicyBuilder()
            .store(self._store)
            .time(datetime.fromtimestamp(now, UTC))
            .max_chain_depth(MAX_INTERMEDIATES)
            .extension_policies(ca_policy=_ca_policy(), ee_policy=_leaf_policy())
            .build_client_verifier()
        )
        try:
            return verifier.verify(leaf, intermediates).chain
        except verification.VerificationError as error:
            # Without the certificates that the library names there: they tell which TPM it is.
            reason = str(error).partition(" (encountered processing")[0]
            raise EndorsementCertificateRefused("chain", " ".join(reason.split())) from error


def _certificate(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions  # read only here, so that a broken one is refused here
    except _UNREADABLE as error:
        raise EndorsementCertificateRefused("form", str(error)) from error
    return certificate


def _encoded(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EndorsementCertificateRefused("key", str(error)) from error


def _ca_policy() -> verification.ExtensionPolicy:
    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.webpki_defaults_ca()
        .may_be_present(x509.ExtendedKeyUsage, agnostic, None)
        .may_be_present(x509.CertificatePolicies, agnostic, None)
    )


def _leaf_policy() -> verification.ExtensionPolicy:
    """What the library has to account for, being perhaps critical; `_check_usage` judges it."""
    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .may_be_present(x509.BasicConstraints, agnostic, None)
        .may_be_present(x509.KeyUsage, agnostic, None)
        .may_be_present(x509.ExtendedKeyUsage, agnostic, None)
        # Endorsement certificates name the TPM's model here, and often have no subject.
        .may_be_present(x509.SubjectAlternativeName, agnostic, None)
        .may_be_present(x509.CertificatePolicies, agnostic, None)
    )


def _check_usage(leaf: x509.Certificate, public: PublicArea) -> None:
    extensions = leaf.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise EndorsementCertificateRefused("usage", "it is a CA's")
    except x509.ExtensionNotFound:
        pass  # absent means that it is not a CA's
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise EndorsementCertificateRefused("usage", "it has no key usage") from error
    is_rsa = isinstance(public.key, rsa.RSAPublicKey)
    if not (usage.key_encipherment if is_rsa else usage.key_agreement):
        needed = "keyEncipherment" if is_rsa else "keyAgreement"
        raise EndorsementCertificateRefused("usage", f"its key usage is without {needed}")
    if usage.key_cert_sign or usage.digital_signature:
        raise EndorsementCertificateRefused("usage", "its key may sign")
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # the profile leaves it to the vendor
    if EK_CERTIFICATE not in extended:
        raise EndorsementCertificateRefused("usage", "it is not for an endorsement key")
