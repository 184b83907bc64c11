"""A TPM vendor's certificate authority, which certifies endorsement keys, well or with a fault."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from oracle.attestation.tpm.endorsement import EK_CERTIFICATE

DAY = 86_400
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_HARDWARE = x509.ObjectIdentifier("2.23.133.2.1")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def key_usage(**allowed: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in _USAGES})


@dataclass(frozen=True)
class EndorsementCa:
    """A root and an issuing authority below it, whose certificates start to count at `now`."""

    now: int
    root: x509.Certificate
    issuer: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, now: int, vendor: str = "Test TPM vendor") -> "EndorsementCa":
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _authority(f"{vendor} root", root_key, None, root_key, now)
        issuer = _authority(f"{vendor} issuer", key, root, root_key, now)
        return cls(now, root, issuer, key)

    def certify(
        self,
        public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        *,
        usage: x509.KeyUsage | None = None,
        has_usage: bool = True,
        extended: x509.ObjectIdentifier | None = EK_CERTIFICATE,
        ca: bool = False,
        from_: int | None = None,
        until: int | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        extra: x509.ExtensionType | None = None,
    ) -> bytes:
        """An endorsement certificate (DER) as vendors make them: no subject, a critical name."""
        start = self.now if from_ is None else from_
        is_rsa = isinstance(public, rsa.RSAPublicKey)
        model = x509.Name([x509.NameAttribute(_HARDWARE, "id:54455354")])
        builder = (
            _builder(public, x509.Name([]), self.issuer.subject, start, until or start + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(model)]), True)
            .add_extension(_authority_id(self.key), False)
        )
        if has_usage:
            default = key_usage(**{"key_encipherment" if is_rsa else "key_agreement": True})
            builder = builder.add_extension(usage or default, True)
        if extended is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), False)
        if extra is not None:
            builder = builder.add_extension(extra, True)
        return der(builder.sign(key or self.key, hashes.SHA256()))


def _authority(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: int,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issued_by = subject if issuer is None else issuer.subject
    builder = (
        _builder(key.public_key(), subject, issued_by, now, now + 3650 * DAY)
        .add_extension(x509.BasicConstraints(True, 1 if issuer is None else 0), True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(_authority_id(issuer_key), False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _builder(
    public: Any, subject: x509.Name, issuer: x509.Name, start: int, end: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
    )


def _authority_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
