"""Delivery of weights: encrypted to the job's own key and bound to the job (HPKE, RFC 9180)."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from settlement.digests import delivery_info
from settlement.errors import InvalidInput
from settlement.types import to_hex

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class DeliveryUnreadable(InvalidInput):
    """A ciphertext that this key does not open for this job."""

    def __init__(self, job_id: bytes) -> None:
        self.job_id = job_id
        super().__init__(f"the delivery does not open with this key for job {to_hex(job_id)}")


def seal(weights: bytes, result_key: bytes, *, chain_id: int, vault: str, job_id: bytes) -> bytes:
    """Encrypt to a raw 32-byte X25519 public key: encapsulated key (32), ciphertext, tag (16).

    Each call gives other bytes. Raises ValueError for a key of small order.
    """
    key = X25519PublicKey.from_public_bytes(result_key)
    return _SUITE.encrypt(
        weights, key, info=delivery_info(chain_id=chain_id, vault=vault, job_id=job_id)
    )


def open_sealed(
    sealed: bytes, private_key: bytes, *, chain_id: int, vault: str, job_id: bytes
) -> bytes:
    """Decrypt with the raw 32-byte X25519 private key what `seal` made for this job.

    Raises:
        DeliveryUnreadable: when it was made for another key, job, vault or chain, or was changed.
    """
    key = X25519PrivateKey.from_private_bytes(private_key)
    info = delivery_info(chain_id=chain_id, vault=vault, job_id=job_id)
    try:
        return _SUITE.decrypt(sealed, key, info=info)
    except (InvalidTag, ValueError) as error:
        raise DeliveryUnreadable(job_id) from error
