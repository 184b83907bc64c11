# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestWallet
@license AGPL-3.0-only
@notice A smart wallet whose ERC-1271 signature is its owner's ECDSA signature. For tests only.
"""
from snekmate.utils import ecdsa

OWNER: immutable(address)


@deploy
def __init__(owner: address):
    OWNER = owner


@external
@view
def isValidSignature(digest: bytes32, signature: Bytes[1024]) -> bytes4:
    if len(signature) == 65 and ecdsa._recover_sig(digest, slice(signature, 0, 65)) == OWNER:
        return 0x1626BA7E
    return 0xFFFFFFFF
