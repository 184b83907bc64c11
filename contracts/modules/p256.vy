# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title ECDSA signatures on P-256, by the precompile at 0x100
@license AGPL-3.0-only
@dev RIP-7212 and EIP-7951: 160 bytes in (hash, r, s, x, y), 32 bytes 1 back for a valid signature, nothing for
     any other. An account without code answers with nothing too, so nothing is never taken for an answer before
     a signature known to be valid has been accepted. A high s is valid, as everywhere in X.509.
"""

PRECOMPILE: constant(address) = 0x0000000000000000000000000000000000000100

# a signature made once with a throw-away key
_KNOWN_HASH: constant(bytes32) = 0x43c127c181f40072f60dcda683d8f15ca3b226e5c9c408a4695d83b992056205
_KNOWN_R: constant(bytes32) = 0x3e7687b39664e5a4bc53ed7c4abc28aa61a458a4e9a90d826cfb1e501164da07
_KNOWN_S: constant(bytes32) = 0xc886d0e40282a572c840f892d66c9391a5bb5e3365a2cd76b2dbff86d4c91014
_KNOWN_X: constant(bytes32) = 0x0b207ae184f0eafd83a9c883f53cf188fe9ee2a810c2a8cf239e48f0a84df97a
_KNOWN_Y: constant(bytes32) = 0xa1d822cac3286186c9cc2643e8cb0524b132b10c35f7476bb85905b06c6b07c4

struct Key:
    x: bytes32
    y: bytes32


struct Signature:
    r: bytes32
    s: bytes32


@internal
@view
def _is_valid(digest: bytes32, signature: Signature, key: Key) -> bool:
    """
    @dev Whether `key` has signed `digest`. Reverts where nobody can tell.
    """
    if self._accepts(digest, signature, key):
        return True
    # only where a refusal has to be believed does it cost a second call
    known: Signature = Signature(r=_KNOWN_R, s=_KNOWN_S)
    assert self._accepts(_KNOWN_HASH, known, Key(x=_KNOWN_X, y=_KNOWN_Y)), "dcap: P256 precompile is missing"
    return False


@internal
@view
def _accepts(digest: bytes32, signature: Signature, key: Key) -> bool:
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        PRECOMPILE,
        abi_encode(digest, signature, key),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(answer) == 32 and convert(answer, uint256) == 1


@internal
@pure
def _digest_of_key(key: Key) -> bytes32:
    return keccak256(abi_encode(key))
