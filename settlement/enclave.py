"""How a quote binds an enclave to this chain: the 64 bytes of `report_data`."""

from eth_abi import encode
from eth_utils import keccak

from settlement.errors import InvalidInput

ENCLAVE_TAG = keccak(text="rapha.enclave.v1")


def report_data(
    *,
    chain_id: int,
    registry: str,
    enclave_key: str,
    encryption_key: bytes,
    nonce: bytes,
    configuration: bytes,
) -> bytes:
    """The 64 bytes that the enclave puts into its quote.

    The first 32 bind chain, registry, signing key, encryption key (32-byte X25519 public key) and
    the verifiers' nonce; the last 32 are the digest of the configuration (policy engine, loader,
    trainer).

    Raises:
        InvalidInput: when key, nonce or configuration are not 32 bytes.
    """
    for name, value in (
        ("encryption key", encryption_key),
        ("nonce", nonce),
        ("configuration", configuration),
    ):
        if len(value) != 32:
            raise InvalidInput(f"the {name} has {len(value)} bytes, not 32")
    binding = keccak(
        encode(
            ["bytes32", "uint256", "address", "address", "bytes32", "bytes32"],
            [ENCLAVE_TAG, chain_id, registry, enclave_key, keccak(encryption_key), nonce],
        )
    )
    return binding + configuration
