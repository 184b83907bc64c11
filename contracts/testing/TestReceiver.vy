# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestReceiver
@license AGPL-3.0-only
@notice An ERC-721 receiver that makes one call while it receives, and may refuse the token. For tests only.
"""

# what to call on receiving, and with what
target: address
payload: Bytes[1024]
# whether to take the token
refuses: bool
# whether the call went through, and how many were tried
reentered: public(bool)
attempts: public(uint256)


@external
def attack(target: address, payload: Bytes[1024]):
    self.target = target
    self.payload = payload


@external
def refuse():
    self.refuses = True


@external
def onERC721Received(operator: address, owner: address, token_id: uint256, data: Bytes[1024]) -> bytes4:
    if self.target != empty(address):
        self.attempts += 1
        if raw_call(self.target, self.payload, revert_on_failure=False):
            self.reentered = True
    return 0x00000000 if self.refuses else 0x150B7A02
