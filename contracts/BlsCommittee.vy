# pragma version 0.4.3
# pragma evm-version cancun
"""
@title BlsCommittee
@license AGPL-3.0-only
@notice An M-of-N committee of oracle operators that sign by BLS on BN254: one aggregated signature, whose cost
        does not grow with those who signed, and hardly with those who did not. `docs/committees.md` says from how
        many on it is cheaper than `EcdsaCommittee`. It never changes: another committee is another contract.
@dev Holds no storage, so there is nothing that a lock could guard. A key is admitted only with a proof that
     somebody has its secret, or a member could choose a key that cancels the others' out and sign alone.
"""
from contracts.interfaces import ICommittee
from contracts.modules import bn254

implements: ICommittee

# a creation has to fit into a transaction of 2^24 gas (EIP-7825), proofs included, and into 24,576 bytes of code
MAX_MEMBERS: constant(uint256) = 80
# signature, signers' twin, bitmap: seven words
SIGNATURES_LENGTH: constant(uint256) = 224

SIGNATURE_DOMAIN: constant(bytes32) = keccak256("rapha.committee.bls.signature.v1")
PROOF_DOMAIN: constant(bytes32) = keccak256("rapha.committee.bls.proof.v1")


struct Key:
    # in G1
    key: uint256[2]
    # in G2, imaginary parts first
    twin: uint256[4]


struct Member:
    key: uint256[2]
    twin: uint256[4]
    # its signature over key and twin
    proof: uint256[2]


# of all members, sorted by the x of their keys
KEYS: immutable(DynArray[Key, MAX_MEMBERS])
# all members' keys in one
SUM: immutable(uint256[2])
THRESHOLD: immutable(uint256)


@deploy
def __init__(members: DynArray[Member, MAX_MEMBERS], threshold: uint256):
    """
    @param members The committee, sorted by the x of their keys, with proofs of possession.
    @param threshold How many of them must sign.
    """
    bn254._check_curve()
    assert threshold != 0 and threshold <= len(members), "committee: threshold out of range"
    keys: DynArray[Key, MAX_MEMBERS] = []
    total: uint256[2] = empty(uint256[2])
    for member: Member in members:
        # distinct, and none another's negative: two points with one x are each other's
        if len(keys) != 0:
            assert member.key[0] > keys[len(keys) - 1].key[0], "committee: members not sorted"
        # a proof is good for any committee: it only says that somebody has the secret
        assert bn254._is_signed(
            PROOF_DOMAIN,
            keccak256(abi_encode(member.key, member.twin)),
            member.proof,
            member.key,
            member.twin,
        ), "committee: key is not proven"
        keys.append(Key(key=member.key, twin=member.twin))
        total = ecadd(total, member.key)
    KEYS = keys
    SUM = total
    THRESHOLD = threshold


@external
@view
def is_signed(digest: bytes32, signatures: Bytes[2080]) -> bool:
    """
    @notice Whether the committee has signed a digest; where it has not, the call reverts and says why.
    @param digest An EIP-712 digest: chain and contract of whoever asks are in it.
    @param signatures Seven words: the signers' signatures in one (x, y), their twins in one (x imaginary, x real,
           y imaginary, y real), and a bit, from the lowest, for each member that did not sign.
    """
    assert len(signatures) == SIGNATURES_LENGTH, "committee: signature not of 224 bytes"
    signature: uint256[2] = empty(uint256[2])
    twin: uint256[4] = empty(uint256[4])
    absent: uint256 = 0
    signature, twin, absent = abi_decode(signatures, (uint256[2], uint256[4], uint256))
    size: uint256 = len(KEYS)
    assert absent >> size == 0, "committee: absent is not a member"
    signers: uint256 = size
    key: uint256[2] = SUM
    for i: uint256 in range(size, bound=MAX_MEMBERS):
        if absent >> i == 0:
            break
        if (absent >> i) & 1 == 1:
            signers -= 1
            key = ecadd(key, bn254._negated(KEYS[i].key))
    assert signers >= THRESHOLD, "committee: too few signatures"
    assert bn254._is_signed(SIGNATURE_DOMAIN, digest, signature, key, twin), "committee: invalid signature"
    return True


@external
@pure
def scheme() -> String[8]:
    """
    @notice How its members sign.
    """
    return "bls"


@external
@view
def size() -> uint256:
    """
    @notice How many members there are.
    """
    return len(KEYS)


@external
@view
def threshold() -> uint256:
    """
    @notice How many members must sign.
    """
    return THRESHOLD


@external
@view
def members() -> DynArray[Key, MAX_MEMBERS]:
    """
    @notice All members' keys, in the order of the bits.
    """
    return KEYS


@external
@view
def message_point(digest: bytes32) -> uint256[2]:
    """
    @notice The point of G1 that a member multiplies by its secret to sign a digest.
    """
    return bn254._hash_to_g1(SIGNATURE_DOMAIN, digest)
