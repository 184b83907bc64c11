# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Signatures by accounts of every kind: ECDSA keys and smart wallets (ERC-1271)
@license AGPL-3.0-only
@dev An account with code is asked too when its ECDSA key has not signed, so that an EIP-7702 account may
     sign either way.
"""

MAX_LENGTH: constant(uint256) = 1024
_ERC1271_MAGIC: constant(bytes4) = 0x1626BA7E
# half of the order of secp256k1: a low s is at most that (EIP-2)
_HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168


@internal
@view
def _is_valid(account: address, digest: bytes32, signature: Bytes[MAX_LENGTH]) -> bool:
    """
    @dev Never reverts, whatever the signature. The zero address has signed nothing.
    """
    if account == empty(address):
        return False
    if len(signature) == 65:
        s: uint256 = convert(extract32(signature, 32), uint256)
        # r, s, v as everywhere; snekmate's own recovery reverts on what it dislikes
        if s <= _HALF_ORDER:
            v: uint256 = convert(slice(signature, 64, 1), uint256)
            if account == ecrecover(digest, v, convert(extract32(signature, 0), uint256), s):
                return True
    if not account.is_contract:
        return False
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        account,
        abi_encode(digest, signature, method_id=_ERC1271_MAGIC),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(answer) == 32 and convert(answer, bytes32) == convert(_ERC1271_MAGIC, bytes32)
