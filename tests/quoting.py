"""Quotes and certificates for the tests of the enclave registry: recorded ones and made ones."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import boa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from p256 import ORDER
from world import ENCRYPTION_KEY, MEASUREMENT, World, actor

from oracle.clients.edge.devplatform import DevPlatform
from settlement.dcap import P256Key, QuoteParts, split_quote
from settlement.enclave import report_data

VECTORS = Path(__file__).parent / "vectors/attestation"
CONFIGURATION = b"\x0c" * 32
REGISTERS = tuple(bytes([i]) * 48 for i in range(1, 6))

# a time within the validity of each recorded quote's collateral
RECORDED = {
    "sgx/phala_v3": 1_751_500_800,
    "sgx/automata_v3": 1_755_236_700,
    "tdx/phala_v4": 1_751_500_800,
    "tdx/near_v4": 1_758_000_000,
    "tdx/automata_v4_outofdate": 1_749_095_100,
}


@cache
def recorded(name: str) -> QuoteParts:
    """A quote of a real machine, without the zeros that TDX drivers put behind it."""
    return split_quote(recorded_bytes(name))


def recorded_bytes(name: str) -> bytes:
    """The same, in one piece."""
    raw = (VECTORS / f"{name}.quote.bin").read_bytes()
    at = 432 if raw[0] == 3 else 632
    return raw[: at + 4 + int.from_bytes(raw[at : at + 4], "little")]


@cache
def dev_platform(now: int) -> DevPlatform:
    """The development platform of the tests, made an hour before `now`."""
    return DevPlatform.create(now, chain_id=31337)


@dataclass(frozen=True)
class Maker:
    """A development platform that makes quotes for one world's registry."""

    world: World
    platform: DevPlatform

    @property
    def pck_key(self) -> P256Key:
        """The platform's key."""
        return P256Key.of(self.platform._certificates["pck"])

    def report_data(self, enclave_key: str, **changes: Any) -> bytes:
        """What a quote for a key says here, made for the present challenge."""
        given: dict[str, Any] = {
            "chain_id": self.world.deployment.chain_id,
            "registry": self.world.deployment.enclave_registry,
            "enclave_key": enclave_key,
            "encryption_key": ENCRYPTION_KEY,
            "nonce": bytes(self.world.enclaves.challenge(self.pck_key.digest)),
            "configuration": CONFIGURATION,
        }
        return report_data(**{**given, **changes})

    def sgx(self, enclave_key: str, measurement: bytes = MEASUREMENT, **changes: Any) -> QuoteParts:
        """An SGX quote of an enclave with this key."""
        return split_quote(
            self.platform.quote(measurement, self.report_data(enclave_key, **changes))
        )

    def tdx(self, enclave_key: str, **changes: Any) -> QuoteParts:
        """A TDX quote of a trust domain with this key."""
        return split_quote(td_quote(self.platform, self.report_data(enclave_key, **changes)))

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """One of the platform's own keys, to sign what it never would."""
        return self.platform._keys[name]

    def certificate(self, name: str) -> bytes:
        """One of its certificates, in DER."""
        return self.platform._certificates[name].public_bytes(serialization.Encoding.DER)

    def sign(self, name: str, data: bytes) -> bytes:
        """r and s by one of its keys."""
        return self.platform._sign(name, data)

    def resign(self, parts: QuoteParts, at: int, value: bytes) -> QuoteParts:
        """The quote with other bytes in its signed part, signed again by the attestation key."""
        signed = splice(parts.signed, at, value)
        return replace(parts, signed=signed, signature=self.sign("attestation", signed))

    def revouch(self, parts: QuoteParts, at: int, value: bytes) -> QuoteParts:
        """The quote with other bytes in the quoting enclave's report, signed again by the PCK."""
        report = splice(parts.report, at, value)
        return replace(parts, report=report, report_signature=self.sign("pck", report))

    def issue(
        self, name: str, issuer: str, /, *, subject: Any = None, signer: Any = None, **changes: Any
    ) -> bytes:
        """The certificate `name` issued anew by the key `issuer`, with `changes`.

        They are not_before, not_after, serial, name (the subject's), hash, and `extensions`, a
        function from the extensions (value, critical) that it has to those that it gets.
        `subject` is another key to certify, `signer` another key to sign with.
        """
        old = self.platform._certificates[name]
        builder = (
            x509.CertificateBuilder()
            .subject_name(changes.get("name", old.subject))
            .issuer_name(self.platform._certificates[issuer].subject)
            .public_key(subject or old.public_key())
            .serial_number(changes.get("serial", old.serial_number))
            .not_valid_before(changes.get("not_before", old.not_valid_before_utc))
            .not_valid_after(changes.get("not_after", old.not_valid_after_utc))
        )
        extensions = [(extension.value, extension.critical) for extension in old.extensions]
        for value, critical in changes.get("extensions", list)(extensions):
            builder = builder.add_extension(value, critical)
        made = builder.sign(signer or self.key(issuer), changes.get("hash", hashes.SHA256()))
        return made.public_bytes(serialization.Encoding.DER)

    def next_platform(self) -> "Maker":
        """Another platform under the same CA, for the same world."""
        key = ec.generate_private_key(ec.SECP256R1())
        der = self.issue("pck", "pck_ca", subject=key.public_key(), serial=99)
        certificates = {
            **self.platform._certificates,
            "pck": x509.load_der_x509_certificate(der),
        }
        platform = replace(
            self.platform,
            _keys={**self.platform._keys, "pck": key},
            _certificates=certificates,
        )
        return Maker(self.world, platform)

    def rewrite(self, certificate: bytes, old: bytes, new: bytes, issuer: str = "pck_ca") -> bytes:
        """The certificate with other bytes of the same number in it, signed again by `issuer`."""
        signed = x509.load_der_x509_certificate(certificate).tbs_certificate_bytes
        assert signed.count(old) == 1
        assert len(old) == len(new)
        signed = signed.replace(old, new)
        return assemble(signed, self.key(issuer).sign(signed, ec.ECDSA(hashes.SHA256())))

    def issuer(self, name: str = "pck_ca") -> tuple[bytes, bytes]:
        """The key of a certificate, as the registry takes it."""
        return P256Key.of(self.platform._certificates[name]).abi_value()


def td_quote(platform: DevPlatform, data: bytes, **options: Any) -> bytes:
    """A TDX quote of the tests' trust domain."""
    return platform.td_quote(REGISTERS[0], data, rtmrs=REGISTERS[1:], **options)


def splice(data: bytes, at: int, value: bytes) -> bytes:
    """`data` with `value` at a place."""
    return data[:at] + value + data[at + len(value) :]


def with_high_s(signature: bytes) -> bytes:
    """The other signature with the same r: s and n - s both hold on P-256."""
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + max(s, ORDER - s).to_bytes(32, "big")


def certificate_with_s(certificate: bytes, *, high: bool) -> bytes:
    """The certificate with its signature's s in the upper or the lower half."""
    parsed = x509.load_der_x509_certificate(certificate)
    r, s = decode_dss_signature(parsed.signature)
    pick = max if high else min
    return assemble(parsed.tbs_certificate_bytes, encode_dss_signature(r, pick(s, ORDER - s)))


def assemble(signed: bytes, signature: bytes) -> bytes:
    """A certificate of its signed part and an ECDSA signature over it, both in DER."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    bits = b"\0" + signature
    body = signed + algorithm + bytes([3, len(bits)]) + bits
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def liar(answer: bytes) -> str:
    """The address of a contract that answers every call with these bytes."""
    # PUSH2 size, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN: what follows is returned
    size = len(answer).to_bytes(2, "big")
    runtime = b"\x61" + size + b"\x80\x60\x0a\x5f\x39\x5f\xf3" + answer
    creation = b"\x61" + len(runtime).to_bytes(2, "big") + b"\x80\x60\x0a\x5f\x39\x5f\xf3"
    address, _ = boa.env.deploy_code(bytecode=creation + runtime)[:2]
    return str(address)


KEY = actor("enclave 2").address
