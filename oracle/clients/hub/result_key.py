"""The key that weights are encrypted to must be able to keep a secret."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from oracle.clients.hub.errors import ResultKeyUnusable

# Any scalar will do: X25519 clears the cofactor, so a small-order point always gives zero.
_PROBE = X25519PrivateKey.from_private_bytes(bytes([1] * 32))


def check_result_key(result_key: bytes) -> None:
    """Pass an X25519 public key that can keep a secret (RFC 7748, section 6.1).

    Raises:
        ResultKeyUnusable: for a point of small order, the zero key among them.
    """
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(result_key))
    except ValueError as error:
        raise ResultKeyUnusable from error
