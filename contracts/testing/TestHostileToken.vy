# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestHostileToken
@license AGPL-3.0-only
@notice A token that calls back in the middle of a transfer, or says that the transfer failed. For tests only.
"""

# what to call during a transfer, and with what
target: public(address)
payload: Bytes[4096]
# what transfers answer
answer: bool
# whether a call during a transfer went through, and how many were tried
reentered: public(bool)
attempts: public(uint256)
balanceOf: public(HashMap[address, uint256])


@deploy
def __init__():
    self.answer = True


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def attack(target: address, payload: Bytes[4096]):
    self.target = target
    self.payload = payload


@external
def set_answer(answer: bool):
    self.answer = answer


@external
def transfer(to: address, amount: uint256) -> bool:
    return self._transfer(msg.sender, to, amount)


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    return self._transfer(owner, to, amount)


@internal
def _transfer(owner: address, to: address, amount: uint256) -> bool:
    if self.target != empty(address):
        self.attempts += 1
        if raw_call(self.target, self.payload, revert_on_failure=False):
            self.reentered = True
    if self.answer:
        self.balanceOf[owner] -= amount
        self.balanceOf[to] += amount
    return self.answer
