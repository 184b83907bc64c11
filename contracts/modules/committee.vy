# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title M-of-N committee of oracle operators, by EIP-712 ECDSA signatures
@license AGPL-3.0-only
@dev Signatures come sorted by signer, so that no signer counts twice. A new committee starts a new epoch,
     and the epoch is part of what is signed: an old committee's signatures register nothing any more.
"""
from snekmate.utils import ecdsa

MAX_MEMBERS: constant(uint256) = 32
# r, s, v of each, one after the other
MAX_SIGNATURES_LENGTH: constant(uint256) = MAX_MEMBERS * 65

event CommitteeChanged:
    epoch: indexed(uint64)
    members: DynArray[address, MAX_MEMBERS]
    threshold: uint256


# counts the committees; the present one's number
epoch: public(uint64)
# how many members must sign
threshold: public(uint256)
# epoch -> account -> may sign
_is_member: HashMap[uint64, HashMap[address, bool]]


@deploy
def __init__(members: DynArray[address, MAX_MEMBERS], threshold: uint256):
    self._set_committee(members, threshold)


@external
@view
def is_member(account: address) -> bool:
    """
    @notice Whether an account is in the present committee.
    """
    return self._is_member[self.epoch][account]


@internal
def _set_committee(members: DynArray[address, MAX_MEMBERS], threshold: uint256):
    assert threshold != 0 and threshold <= len(members), "committee: threshold out of range"
    epoch: uint64 = self.epoch + 1
    previous: address = empty(address)
    for member: address in members:
        assert convert(member, uint160) > convert(previous, uint160), "committee: members not sorted"
        self._is_member[epoch][member] = True
        previous = member
    self.epoch = epoch
    self.threshold = threshold
    log CommitteeChanged(epoch=epoch, members=members, threshold=threshold)


@internal
@view
def _check_signatures(digest: bytes32, signatures: Bytes[MAX_SIGNATURES_LENGTH]):
    count: uint256 = len(signatures) // 65
    assert len(signatures) == count * 65, "committee: signatures not of 65 bytes"
    assert count >= self.threshold, "committee: too few signatures"
    epoch: uint64 = self.epoch
    previous: address = empty(address)
    for i: uint256 in range(count, bound=MAX_MEMBERS):
        # malformed ones revert
        signer: address = ecdsa._recover_sig(digest, slice(signatures, i * 65, 65))
        assert self._is_member[epoch][signer], "committee: signer is not a member"
        assert convert(signer, uint160) > convert(previous, uint160), "committee: signatures not sorted"
        previous = signer
