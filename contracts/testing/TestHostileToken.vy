# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestHostileToken
@license AGPL-3.0-only
@notice A token that calls back in the middle of a transfer, keeps a part of what it moves, answers what it
        likes, refuses accounts, or stops in the middle of a batch. For tests only.
"""

# what to call during a transfer, and with what
target: public(address)
payload: Bytes[4096]
# what transfers answer, as it is: no bytes, or a word
answer: Bytes[32]
# base units that disappear in each transfer
fee: public(uint256)
# how many more transfers go through before all revert
transfers_left: public(uint256)
# accounts whose transfers revert
refused: public(HashMap[address, bool])
# whether a call during a transfer went through, and how many were tried
reentered: public(bool)
attempts: public(uint256)
balanceOf: public(HashMap[address, uint256])


@deploy
def __init__():
    self.answer = abi_encode(True)
    self.transfers_left = max_value(uint256)


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def attack(target: address, payload: Bytes[4096]):
    self.target = target
    self.payload = payload


@external
def set_answer(answer: Bytes[32]):
    self.answer = answer


@external
def set_fee(fee: uint256):
    self.fee = fee


@external
def stop_after(transfers: uint256):
    self.transfers_left = transfers


@external
def refuse(account: address, refused: bool):
    self.refused[account] = refused


@external
@raw_return
def transfer(to: address, amount: uint256) -> Bytes[32]:
    return self._transfer(msg.sender, to, amount)


@external
@raw_return
def transferFrom(owner: address, to: address, amount: uint256) -> Bytes[32]:
    return self._transfer(owner, to, amount)


@external
def receiveWithAuthorization(
    owner: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    signature: Bytes[1024],
):
    self._transfer(owner, to, amount)


@internal
def _transfer(owner: address, to: address, amount: uint256) -> Bytes[32]:
    assert self.transfers_left != 0, "TestHostileToken: stopped"
    assert not self.refused[owner] and not self.refused[to], "TestHostileToken: account refused"
    self.transfers_left -= 1
    if self.target != empty(address):
        self.attempts += 1
        if raw_call(self.target, self.payload, revert_on_failure=False):
            self.reentered = True
    # a token that says no has moved nothing
    if len(self.answer) == 0 or convert(self.answer, uint256) == 1:
        self.balanceOf[owner] -= amount
        self.balanceOf[to] += amount - self.fee
    return self.answer
