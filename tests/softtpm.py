"""A TPM's keys in Python: public areas, quotes and credentials as a TPM encodes them.

It lets unit tests make what no real TPM would: each structure with one fault.
"""

import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from oracle.attestation.tpm.credential import kdfa, kdfe
from oracle.attestation.tpm.quote import TpmQuote
from oracle.attestation.tpm.structures import Attributes, Bank, PublicArea, Scheme, parse_public

AK = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.USER_WITH_AUTH
    | Attributes.RESTRICTED
    | Attributes.SIGN
)
EK = (AK | Attributes.ADMIN_WITH_POLICY | Attributes.DECRYPT) & ~Attributes.SIGN
_CURVES = {256: 0x0003, 384: 0x0004}


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


@dataclass(frozen=True)
class SoftKey:
    """A key with the public area that a TPM would give it."""

    key: Any
    attributes: int
    bank: Bank = Bank.SHA256
    scheme: Scheme | None = None
    hash: Bank = Bank.SHA256
    aes_bits: int | None = None
    policy: bytes = b""

    @classmethod
    def ak(cls, key: Any, scheme: Scheme, **changes: Any) -> "SoftKey":
        """An attestation key."""
        return replace(cls(key, AK, scheme=scheme), **changes)

    @classmethod
    def ek(cls, key: Any, **changes: Any) -> "SoftKey":
        """An endorsement key by the TCG's templates."""
        return replace(cls(key, EK, aes_bits=128, policy=bytes(32)), **changes)

    def public(self) -> bytes:
        """TPM2B_PUBLIC."""
        public = self.key.public_key()
        is_rsa = isinstance(public, rsa.RSAPublicKey)
        area = struct.pack(">HHI", 1 if is_rsa else 0x23, self.bank.algorithm_id, self.attributes)
        area += sized(self.policy)
        area += struct.pack(">HHH", 6, self.aes_bits, 0x43) if self.aes_bits else b"\0\x10"
        area += (
            struct.pack(">HH", self.scheme, self.hash.algorithm_id) if self.scheme else b"\0\x10"
        )
        numbers, size = public.public_numbers(), public.key_size // 8
        if is_rsa:
            area += struct.pack(">HI", public.key_size, 0) + sized(numbers.n.to_bytes(size, "big"))
        else:
            area += struct.pack(">HH", _CURVES[public.key_size], 0x10)
            area += sized(numbers.x.to_bytes(size, "big")) + sized(numbers.y.to_bytes(size, "big"))
        return sized(area)

    def parsed(self) -> PublicArea:
        return parse_public(self.public())

    def sign(self, data: bytes) -> bytes:
        """TPMT_SIGNATURE."""
        assert self.scheme is not None
        head = struct.pack(">HH", self.scheme, self.hash.algorithm_id)
        if self.scheme is Scheme.ECDSA:
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(self.hash.hash)))
            size = self.key.key_size // 8
            return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
        scheme: padding.AsymmetricPadding = padding.PKCS1v15()
        if self.scheme is Scheme.RSAPSS:
            scheme = padding.PSS(padding.MGF1(self.hash.hash), self.hash.size)
        return head + sized(self.key.sign(data, scheme, self.hash.hash))

    def quote(
        self, nonce: bytes, pcrs: Mapping[Bank, Mapping[int, bytes]], **changes: Any
    ) -> TpmQuote:
        """A quote over these PCRs; `changes` are arguments of `attest`."""
        values = b"".join(value for bank in pcrs for _, value in sorted(pcrs[bank].items()))
        attested = attest(nonce, pcrs, self.hash.digest(values), **changes)
        return TpmQuote(
            ak_public=self.public(),
            attest=attested,
            signature=self.sign(attested),
            pcrs={bank: dict(of) for bank, of in pcrs.items()},
        )

    def activate(self, name: bytes, blob: bytes, encrypted_secret: bytes) -> bytes:
        """What TPM2_ActivateCredential gives while the key called `name` is loaded.

        Raises:
            ValueError: when the integrity check fails.
        """
        seed = self._seed(encrypted_secret[2:])
        body = blob[2:]
        end = 2 + int.from_bytes(body[:2], "big")
        integrity, encrypted = body[2:end], body[end:]
        key = kdfa(self.bank, seed, b"INTEGRITY", b"", self.bank.size * 8)
        if hmac.digest(key, encrypted + name, self.bank.value) != integrity:
            raise ValueError("integrity check failed")
        assert self.aes_bits is not None
        aes = algorithms.AES(kdfa(self.bank, seed, b"STORAGE", name, self.aes_bits))
        decryptor = Cipher(aes, CFB(bytes(16))).decryptor()
        opened = decryptor.update(encrypted) + decryptor.finalize()
        assert int.from_bytes(opened[:2], "big") == len(opened) - 2
        return opened[2:]

    def _seed(self, encrypted: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            mgf = padding.MGF1(self.bank.hash)
            opened = self.key.decrypt(encrypted, padding.OAEP(mgf, self.bank.hash, b"IDENTITY\0"))
            return bytes(opened)
        x, y = encrypted[2:34], encrypted[36:]
        point = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), self.key.curve
        )
        shared = self.key.exchange(ec.ECDH(), point.public_key())
        own = self.key.public_key().public_numbers().x.to_bytes(32, "big")
        return kdfe(self.bank, shared, b"IDENTITY\0", x, own)


def attest(
    nonce: bytes,
    pcrs: Mapping[Bank, Mapping[int, bytes]],
    digest: bytes,
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    safe: int = 1,
    clock: int = 1_000,
    resets: int = 1,
    restarts: int = 0,
) -> bytes:
    """TPMS_ATTEST of a quote."""
    selections = b"".join(
        struct.pack(">HB", bank.algorithm_id, 3) + sum(1 << pcr for pcr in of).to_bytes(3, "little")
        for bank, of in pcrs.items()
    )
    return (
        struct.pack(">IH", magic, kind)
        + sized(b"\0\x0b" + bytes(32))
        + sized(nonce)
        + struct.pack(">QIIBQ", clock, resets, restarts, safe, 0x2019_1023)
        + struct.pack(">I", len(pcrs))
        + selections
        + sized(digest)
    )
