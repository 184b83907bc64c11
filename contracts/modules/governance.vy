# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Who governs: a two-step owner (the timelock) and a guardian who can only stop things
@license AGPL-3.0-only
"""
from snekmate.auth import ownable
from snekmate.auth import ownable_2step

uses: ownable
initializes: ownable_2step[ownable := ownable]

exports: (
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
    ownable_2step.accept_ownership,
)

event GuardianChanged:
    previous_guardian: indexed(address)
    new_guardian: indexed(address)


# may stop things at once, and nothing else
guardian: public(address)


@deploy
def __init__(owner: address, guardian: address):
    assert owner != empty(address), "governance: owner is zero"
    ownable_2step.__init__()
    ownable_2step._transfer_ownership(owner)
    self._set_guardian(guardian)


@external
def set_guardian(new_guardian: address):
    """
    @notice Replace the guardian. Owner only.
    @param new_guardian The account that may stop things; zero leaves the post empty.
    """
    ownable._check_owner()
    self._set_guardian(new_guardian)


@internal
def _set_guardian(new_guardian: address):
    log GuardianChanged(previous_guardian=self.guardian, new_guardian=new_guardian)
    self.guardian = new_guardian


@internal
@view
def _check_guardian():
    assert msg.sender == self.guardian or msg.sender == ownable.owner, "governance: caller is not the guardian"
