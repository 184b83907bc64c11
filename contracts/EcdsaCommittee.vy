# pragma version 0.4.3
# pragma evm-version cancun
"""
@title EcdsaCommittee
@license AGPL-3.0-only
@notice An M-of-N committee of oracle operators that sign by ECDSA on secp256k1. It never changes: another
        committee is another contract, and what it vouches for is the choice of whoever asks it.
@dev Holds no storage, so there is nothing that a lock could guard. Signatures and members are both sorted, so
     one walk over the members, which are in the code, finds each signer and counts none twice.
"""
from contracts.interfaces import ICommittee
from snekmate.utils import ecdsa

implements: ICommittee

MAX_MEMBERS: constant(uint256) = 64
# from 29 on of so many a `BlsCommittee` is cheaper
MAX_THRESHOLD: constant(uint256) = 32
# r, s, v of each, one after the other
MAX_SIGNATURES_LENGTH: constant(uint256) = MAX_THRESHOLD * 65

MEMBERS: immutable(DynArray[address, MAX_MEMBERS])
THRESHOLD: immutable(uint256)


@deploy
def __init__(members: DynArray[address, MAX_MEMBERS], threshold: uint256):
    """
    @param members The committee, sorted by address.
    @param threshold How many of them must sign.
    """
    assert threshold != 0 and threshold <= min(len(members), MAX_THRESHOLD), "committee: threshold out of range"
    previous: address = empty(address)
    for member: address in members:
        assert convert(member, uint160) > convert(previous, uint160), "committee: members not sorted"
        previous = member
    MEMBERS = members
    THRESHOLD = threshold


@external
@view
def is_signed(digest: bytes32, signatures: Bytes[MAX_SIGNATURES_LENGTH]) -> bool:
    """
    @notice Whether the committee has signed a digest; where it has not, the call reverts and says why.
    @param digest An EIP-712 digest: chain and contract of whoever asks are in it.
    @param signatures Of members: 65 bytes (r, s, v) each, sorted by signer, low s.
    """
    count: uint256 = len(signatures) // 65
    assert len(signatures) == count * 65, "committee: signatures not of 65 bytes"
    assert count >= THRESHOLD, "committee: too few signatures"
    size: uint256 = len(MEMBERS)
    place: uint256 = 0
    for i: uint256 in range(count, bound=MAX_THRESHOLD):
        # malformed ones revert
        signer: address = ecdsa._recover_sig(digest, slice(signatures, i * 65, 65))
        for _: uint256 in range(MAX_MEMBERS):
            if place == size or convert(MEMBERS[place], uint160) >= convert(signer, uint160):
                break
            place += 1
        if place == size or MEMBERS[place] != signer:
            assert self._is_member(signer), "committee: signer is not a member"
            raise "committee: signatures not sorted"
        place += 1
    return True


@external
@pure
def scheme() -> String[8]:
    """
    @notice How its members sign.
    """
    return "ecdsa"


@external
@view
def size() -> uint256:
    """
    @notice How many members there are.
    """
    return len(MEMBERS)


@external
@view
def threshold() -> uint256:
    """
    @notice How many members must sign.
    """
    return THRESHOLD


@external
@view
def members() -> DynArray[address, MAX_MEMBERS]:
    """
    @notice All members, sorted by address.
    """
    return MEMBERS


@external
@view
def is_member(account: address) -> bool:
    """
    @notice Whether an account is a member.
    """
    return self._is_member(account)


@internal
@view
def _is_member(account: address) -> bool:
    for i: uint256 in range(len(MEMBERS), bound=MAX_MEMBERS):
        if MEMBERS[i] == account:
            return True
    return False
