"""Quotes and certificates as the enclave registry takes them, and what it trusts.

The contract gets a quote in parts: without the lengths in it and without its certificates, which
are registered once per platform. Sources: Intel SGX ECDSA QuoteLibReference, Intel TDX DCAP Quoting
Library, Intel SGX PCK Certificate and CRL Profile.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature as NotSigned
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from eth_utils import keccak

from settlement.errors import InvalidInput, InvalidSignature
from settlement.types import Bytes32, HexData

SGX = 0x00
TDX = 0x81
"""TEE types, as quotes and the registry have them."""

_SGX_SIGNED = 432
_TDX_SIGNED = 632
_REPORT = 384
_AUTHENTICATION = 32


class QuoteUnusable(InvalidInput):
    """The bytes are not a quote that the registry can check: SGX version 3 or TDX version 4."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the registry cannot take this quote: {reason}")


@dataclass(frozen=True)
class P256Key:
    """A public key on P-256: the affine coordinates, 32 bytes each."""

    x: Bytes32
    y: Bytes32

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "P256Key":
        """The key that a certificate is for.

        Raises:
            InvalidInput: when it is for another kind of key.
        """
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise InvalidInput("the certificate is not for a P-256 key")
        point = key.public_numbers()
        return cls(point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big"))

    @property
    def digest(self) -> bytes:
        """keccak-256 of x and y: how the registry knows a platform or a CA."""
        return keccak(self.x + self.y)

    def check(self, signature: bytes, data: bytes) -> None:
        """Let this key's ECDSA signature (r and s, 64 bytes) over SHA-256 of `data` pass.

        Raises:
            InvalidSignature: when it is not that.
        """
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(
                ec.SECP256R1(), b"\x04" + self.x + self.y
            ).verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        except (NotSigned, ValueError):
            raise InvalidSignature("the signature is not by this P-256 key") from None

    def abi_value(self) -> tuple[bytes, bytes]:
        """The value of the contract's `Key`."""
        return self.x, self.y


@dataclass(frozen=True)
class QuoteParts:
    """A quote taken apart: what the registry's `Quote` holds, and the certificates it leaves out.

    Signatures are r and s, 64 bytes. `certificates` are DER: the platform's, its CA's, the root's.
    """

    signed: bytes
    signature: bytes
    attestation_key: P256Key
    report: bytes
    report_signature: bytes
    authentication: bytes
    certificates: tuple[bytes, ...]

    @property
    def pck_key(self) -> P256Key:
        """The platform's key; its digest is the platform."""
        return P256Key.of(x509.load_der_x509_certificate(self.certificates[0]))

    @property
    def platform(self) -> bytes:
        """How the registry knows the platform, by the word of the certificates alone."""
        return self.pck_key.digest

    @property
    def certified_until(self) -> int:
        """When the platform's certificate ends, Unix seconds."""
        certificate = x509.load_der_x509_certificate(self.certificates[0])
        return int(certificate.not_valid_after_utc.timestamp())

    @property
    def issuer(self) -> P256Key:
        """The key of the CA that certifies the platform."""
        return P256Key.of(x509.load_der_x509_certificate(self.certificates[1]))

    @property
    def module_svn(self) -> int:
        """TEE_TCB_SVN of a TDX quote as the registry reads it; zero for SGX."""
        return int.from_bytes(self.signed[48:64], "big") if len(self.signed) == _TDX_SIGNED else 0

    def abi_value(self) -> tuple[Any, ...]:
        """The value of the contract's `Quote`."""
        return (
            self.signed,
            _words(self.signature),
            self.attestation_key.abi_value(),
            list(_words(self.report)),
            _words(self.report_signature),
            self.authentication,
            self.pck_key.abi_value(),
        )


@dataclass(frozen=True)
class QuotingEnclave:
    """Which enclave may vouch for attestation keys, by its report's bytes.

    Masks say which bits count (Intel PCS v4, "Get Quoting Enclave Identity").
    """

    signer: Bytes32
    product: int
    min_svn: int
    misc_select: HexData = bytes(4)
    misc_select_mask: HexData = b"\xff" * 4
    attributes: HexData = b"\x11" + bytes(15)
    attributes_mask: HexData = b"\xfb" + b"\xff" * 7 + bytes(8)

    def abi_value(self) -> tuple[Any, ...]:
        """The value of the contract's `QuotingEnclave`."""
        return (
            self.signer,
            self.product,
            self.min_svn,
            self.misc_select,
            self.misc_select_mask,
            self.attributes,
            self.attributes_mask,
        )


@dataclass(frozen=True)
class Trust:
    """What a registry trusts from its start: a root for good, its CAs (DER) and quoting enclaves.

    Without CAs no platform can be registered until governance allows one.
    """

    root: P256Key
    authorities: tuple[HexData, ...]
    sgx: QuotingEnclave
    tdx: QuotingEnclave

    def abi_value(self, certificates: str) -> tuple[Any, ...]:
        """The value of the contract's `Trust`; `certificates` is the `PckCertificates` contract."""
        return (
            certificates,
            self.root.abi_value(),
            list(self.authorities),
            self.sgx.abi_value(),
            self.tdx.abi_value(),
        )


def split_quote(quote: bytes) -> QuoteParts:
    """Take an SGX v3 or TDX v4 quote apart. Every length in it must agree with what is there.

    Raises:
        QuoteUnusable: for anything else.
    """
    head = quote[:2], quote[4:8]
    if head == (b"\x03\0", SGX.to_bytes(4, "little")):
        at = _SGX_SIGNED
    elif head == (b"\x04\0", TDX.to_bytes(4, "little")):
        at = _TDX_SIGNED
    else:
        raise QuoteUnusable("it is neither SGX version 3 nor TDX version 4")
    signed, rest = quote[:at], _Rest(quote[at:])
    rest.size(4)
    signature, key = rest.take(64), rest.take(64)
    if at == _TDX_SIGNED:
        rest.number(2, 6)
        rest.size(4)
    report, report_signature = rest.take(_REPORT), rest.take(64)
    rest.number(2, _AUTHENTICATION)
    authentication = rest.take(_AUTHENTICATION)
    rest.number(2, 5)
    rest.size(4)
    try:
        # some quotes end their certificates with a zero, as C ends strings
        chain = x509.load_pem_x509_certificates(rest.take(len(rest.data)).rstrip(b"\0"))
        for certificate in chain:
            P256Key.of(certificate)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise QuoteUnusable(f"its certificates cannot be read: {error}") from error
    if len(chain) != 3:
        raise QuoteUnusable(f"it has {len(chain)} certificates, not 3")
    return QuoteParts(
        signed=signed,
        signature=signature,
        attestation_key=P256Key(key[:32], key[32:]),
        report=report,
        report_signature=report_signature,
        authentication=authentication,
        certificates=tuple(c.public_bytes(serialization.Encoding.DER) for c in chain),
    )


class _Rest:
    """What of a quote has not been read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise QuoteUnusable("it ends too early")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, size: int, expected: int) -> None:
        found = int.from_bytes(self.take(size), "little")
        if found != expected:
            raise QuoteUnusable(f"{found} stands where {expected} is expected")

    def size(self, size: int) -> None:
        """A length of all that follows."""
        if int.from_bytes(self.take(size), "little") != len(self.data):
            raise QuoteUnusable("a length in it is not that of what follows")


def _words(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[at : at + 32] for at in range(0, len(data), 32))


def _intel_ca(name: str) -> bytes:
    pem = (files("settlement") / "intel" / f"pck_{name}_ca.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


INTEL = Trust(
    root=P256Key(
        bytes.fromhex("0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"),
        bytes.fromhex("67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"),
    ),
    authorities=(_intel_ca("platform"), _intel_ca("processor")),
    sgx=QuotingEnclave(
        signer=bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"),
        product=1,
        min_svn=8,
    ),
    tdx=QuotingEnclave(
        signer=bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"),
        product=2,
        min_svn=4,
    ),
)
"""Intel's root, its two CAs for PCK certificates, and its quoting enclaves at their lowest version
that is up to date (QE and TD_QE identity, evaluation 17)."""
