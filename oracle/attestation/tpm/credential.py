"""MakeCredential: a secret that only one key's TPM gives back, and only while it holds another key.

Source: TCG, Trusted Platform Module Library, Part 1: Architecture, "Credential Protection" and
"Key Derivation Function", and Part 3, TPM2_MakeCredential.
"""

import hmac
import secrets
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from oracle.attestation.errors import EndorsementKeyUnfit
from oracle.attestation.tpm.structures import Attributes, Bank, PublicArea

_REQUIRED = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.DECRYPT
)
_IDENTITY = b"IDENTITY\0"


class Credential(NamedTuple):
    """What TPM2_ActivateCredential takes: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    blob: bytes
    encrypted_secret: bytes


def check_endorsement_key(public: PublicArea) -> None:
    """Check that the key is a storage key of a TPM: RSA of 2048 bits or P-256, with AES.

    Only for such a key does a TPM open credentials as `make_credential` closes them.

    Raises:
        EndorsementKeyUnfit: when it is anything else.
    """
    missing = _REQUIRED & ~public.attributes
    if missing:
        names = ", ".join(str(flag.name).lower() for flag in Attributes if flag & missing)
        raise EndorsementKeyUnfit(f"it is not {names}")
    if public.attributes & Attributes.SIGN:
        raise EndorsementKeyUnfit("it signs")
    if public.aes_bits is None:
        raise EndorsementKeyUnfit("it has no symmetric algorithm")
    if public.scheme is not None:
        raise EndorsementKeyUnfit("it has a signing scheme")
    if public.bank is Bank.SHA1:
        raise EndorsementKeyUnfit("it uses SHA-1")
    size = 2048 if isinstance(public.key, rsa.RSAPublicKey) else 256
    if public.key.key_size != size:
        raise EndorsementKeyUnfit(f"it has {public.key.key_size} bits, not {size}")


def make_credential(endorsement: PublicArea, name: bytes, secret: bytes) -> Credential:
    """Encrypt `secret` (at most a digest's length) to the TPM of `endorsement`.

    The TPM gives it back only while it holds the key called `name`.

    Raises:
        EndorsementKeyUnfit: when credentials cannot be made for such a key.
    """
    check_endorsement_key(endorsement)
    bank, aes_bits = endorsement.bank, endorsement.aes_bits
    assert aes_bits is not None
    seed, encrypted_secret = (
        _rsa_seed(bank, endorsement.key)
        if isinstance(endorsement.key, rsa.RSAPublicKey)
        else _ecc_seed(bank, endorsement.key)
    )
    key = kdfa(bank, seed, b"STORAGE", name, aes_bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity_key = kdfa(bank, seed, b"INTEGRITY", b"", bank.size * 8)
    integrity = hmac.digest(integrity_key, encrypted + name, bank.value)
    return Credential(_sized(_sized(integrity) + encrypted), _sized(encrypted_secret))


def kdfa(bank: Bank, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa: counter mode of SP 800-108 with HMAC."""
    return KBKDFHMAC(
        algorithm=bank.hash,
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(key)


def kdfe(bank: Bank, shared: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """KDFe: the concatenation KDF of SP 800-56A, as long as a digest. `label` ends with a zero."""
    return ConcatKDFHash(bank.hash, bank.size, label + party_u + party_v).derive(shared)


def _rsa_seed(bank: Bank, key: rsa.RSAPublicKey) -> tuple[bytes, bytes]:
    seed = secrets.token_bytes(bank.size)
    oaep = padding.OAEP(padding.MGF1(bank.hash), bank.hash, _IDENTITY)
    return seed, key.encrypt(seed, oaep)


def _ecc_seed(bank: Bank, key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    ephemeral = ec.generate_private_key(key.curve)
    shared = ephemeral.exchange(ec.ECDH(), key)
    size = (key.key_size + 7) // 8
    own, point = ephemeral.public_key().public_numbers(), key.public_numbers()
    x, y = own.x.to_bytes(size, "big"), own.y.to_bytes(size, "big")
    seed = kdfe(bank, shared, _IDENTITY, x, point.x.to_bytes(size, "big"))
    return seed, _sized(x) + _sized(y)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
