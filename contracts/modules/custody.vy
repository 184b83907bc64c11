# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Custody: the only code that moves USDC, who may withdraw what, and the pause
@license AGPL-3.0-only
@dev USDC enters by `_pull`, `_pull_authorized` and leaves by `withdraw*` and `recover`. Everything between is
     this ledger's own numbers; `balanceOf(self)` is only held against them.
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import IUSDC
from contracts.modules import governance
from contracts.modules import signatures
from contracts.modules import typed_data
from contracts.modules import words
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

uses: ownable
uses: governance
uses: eip712_domain_separator

MAX_PUSHES: constant(uint256) = 50
MIN_GRACE: constant(uint256) = 60 * 60
MAX_GRACE: constant(uint256) = 30 * 24 * 60 * 60

_UINT64: constant(uint256) = 2**64 - 1

USDC: immutable(IUSDC)
# seconds after a job's deadline, or after the wish to cancel it, in which its receipts are still paid
GRACE: immutable(uint256)

# end of the last pause (from bit 64), all that the vault owes (64 bits): one slot to read when a job opens
_paused_until_and_owed: uint256
# account -> USDC base units that it may withdraw, or open jobs with
balances: public(HashMap[address, uint256])
# account -> how many signed withdrawals it has made
withdrawal_nonces: public(HashMap[address, uint256])


@deploy
def __init__(usdc: IUSDC, grace: uint256):
    assert usdc.address.is_contract, "vault: not a contract"
    assert grace >= MIN_GRACE and grace <= MAX_GRACE, "vault: grace out of range"
    USDC = usdc
    GRACE = grace


@external
def deposit(account: address, amount: uint256):
    """
    @notice Add the caller's USDC to an account's balance, from the caller's allowance.
    @param account Whose balance grows; it can open jobs with it, or withdraw it.
    @param amount USDC base units.
    """
    # neither could ever take it out again
    assert account != empty(address) and account != self, "vault: account is not allowed"
    self._take(amount)
    self._pull(msg.sender, amount)
    self.balances[account] += amount
    log IClearingVault.Deposited(account=account, depositor=msg.sender, amount=amount)


@external
def deposit_with_authorization(
    account: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    salt: bytes32,
    signature: Bytes[signatures.MAX_LENGTH],
):
    """
    @notice Add USDC to its owner's balance by its EIP-3009 signature, whose nonce is the EIP-712 digest of
            `Deposit(account, amount, salt)`: it authorises this deposit and nothing else. Anyone may bring it.
    @param account Who signs, pays and may use the balance.
    @param amount USDC base units.
    @param valid_after The authorisation counts after this second.
    @param valid_before The authorisation counts before this second.
    @param salt Makes otherwise equal deposits distinct.
    @param signature By the account, over USDC's `ReceiveWithAuthorization`.
    """
    nonce: bytes32 = typed_data._digest(
        eip712_domain_separator._domain_separator_v4(),
        keccak256(abi_encode(typed_data.DEPOSIT_TYPE_HASH, account, amount, salt)),
    )
    self._take(amount)
    self._pull_authorized(account, amount, valid_after, valid_before, nonce, signature)
    self.balances[account] += amount
    log IClearingVault.Deposited(account=account, depositor=account, amount=amount)


@external
def withdraw() -> uint256:
    """
    @notice Take the caller's whole balance out. Also while paused.
    @return What was sent, in USDC base units.
    """
    return self._withdraw_all(msg.sender)


@external
def withdraw_for(account: address) -> uint256:
    """
    @notice Send an account its own whole balance. Anyone, also while paused.
    @return What was sent, in USDC base units.
    """
    return self._withdraw_all(account)


@external
def withdraw_for_many(accounts: DynArray[address, MAX_PUSHES]) -> uint256:
    """
    @notice Send accounts their own whole balances. Anyone, also while paused. An account that USDC refuses
            keeps its balance and stops no other.
    @return What was sent in all, in USDC base units.
    """
    total: uint256 = 0
    for account: address in accounts:
        amount: uint256 = self.balances[account]
        if amount == 0:
            continue
        self.balances[account] = 0
        success: bool = False
        answer: Bytes[32] = b""
        success, answer = raw_call(
            USDC.address,
            abi_encode(account, amount, method_id=method_id("transfer(address,uint256)")),
            max_outsize=32,
            revert_on_failure=False,
        )
        if success and (len(answer) == 0 or convert(answer, uint256) == 1):
            total += amount
            log IClearingVault.Withdrawn(account=account, to=account, amount=amount)
        else:
            self.balances[account] = amount
            log IClearingVault.WithdrawalRefused(account=account, amount=amount)
    self._paused_until_and_owed -= total
    return total


@external
def withdraw_to(to: address, amount: uint256):
    """
    @notice Send a part of the caller's balance to any address. Also while paused.
    @param to Who receives it.
    @param amount USDC base units.
    """
    self._withdraw(msg.sender, to, amount)


@external
def withdraw_by_signature(
    account: address, to: address, amount: uint256, deadline: uint256, signature: Bytes[signatures.MAX_LENGTH]
):
    """
    @notice Send a part of an account's balance where its EIP-712 signature over
            `Withdrawal(account, to, amount, nonce, deadline)` says. Anyone may bring it, also while paused.
    @param account Whose balance it is.
    @param to Who receives it.
    @param amount USDC base units.
    @param deadline The last second in which the signature counts.
    @param signature By the account, an EOA or an ERC-1271 wallet, over its present `withdrawal_nonces`.
    """
    assert block.timestamp <= deadline, "vault: signature has expired"
    nonce: uint256 = self.withdrawal_nonces[account]
    digest: bytes32 = typed_data._digest(
        eip712_domain_separator._domain_separator_v4(),
        keccak256(abi_encode(typed_data.WITHDRAWAL_TYPE_HASH, account, to, amount, nonce, deadline)),
    )
    assert signatures._is_valid(account, digest, signature), "vault: invalid signature"
    self.withdrawal_nonces[account] = nonce + 1
    self._withdraw(account, to, amount)


@external
def recover(token: IUSDC, to: address) -> uint256:
    """
    @notice Send out tokens that came here by mistake. Owner only. Of USDC never more than what exceeds all
            that the vault owes.
    @param token Any ERC-20.
    @param to Who receives them.
    @return What was sent, in the token's base units.
    """
    ownable._check_owner()
    amount: uint256 = staticcall token.balanceOf(self)
    if token == USDC:
        amount -= min(amount, self._owed())
    assert amount != 0, "vault: nothing to recover"
    self._send(token, to, amount)
    log IClearingVault.Recovered(token=token.address, to=to, amount=amount)
    return amount


@external
def pause():
    """
    @notice Stop new money and settling for half a grace period. Guardian or owner. The next pause can start
            one grace period after this one's end, so that every job's grace has at least half its time unpaused.
    """
    governance._check_guardian()
    paused_until: uint256 = self._paused_until()
    assert paused_until == 0 or block.timestamp >= paused_until + GRACE, "vault: paused too recently"
    self._set_paused_until(block.timestamp + GRACE // 2)
    log IClearingVault.Paused(guardian=msg.sender, until=block.timestamp + GRACE // 2)


@external
def unpause():
    """
    @notice End a pause early. Owner only.
    """
    ownable._check_owner()
    assert block.timestamp < self._paused_until(), "vault: not paused"
    self._set_paused_until(block.timestamp)
    log IClearingVault.Unpaused(owner=msg.sender)


@external
@view
def usdc() -> address:
    """
    @notice The token that is held.
    """
    return USDC.address


@external
@view
def grace() -> uint256:
    """
    @notice Seconds after a job's deadline, or after the wish to cancel it, in which its receipts are still paid.
    """
    return GRACE


@external
@view
def owed() -> uint256:
    """
    @notice All that the vault owes: open escrow, earnings, disputed amounts and balances, in USDC base units.
    """
    return self._owed()


@external
@view
def paused_until() -> uint256:
    """
    @notice No new money and no settling before this second.
    """
    return self._paused_until()


@internal
@view
def _owed() -> uint256:
    return self._paused_until_and_owed & _UINT64


@internal
@view
def _paused_until() -> uint256:
    return self._paused_until_and_owed >> 64


@internal
def _set_paused_until(second: uint256):
    self._paused_until_and_owed = second << 64 | self._owed()


@internal
@view
def _check_not_paused():
    assert block.timestamp >= self._paused_until(), "vault: paused"


@internal
def _take(amount: uint256):
    """
    @dev Owe more, before the USDC that covers it is pulled.
    """
    state: uint256 = self._paused_until_and_owed
    assert block.timestamp >= state >> 64, "vault: paused"
    assert amount != 0, "vault: amount is zero"
    assert amount <= words.MAX_OWED - (state & _UINT64), "vault: amount too large"
    self._paused_until_and_owed = state + amount


@internal
def _pull(sender: address, amount: uint256):
    assert extcall USDC.transferFrom(sender, self, amount, default_return_value=True), "vault: transfer failed"
    self._check_covered()


@internal
def _pull_authorized(
    sender: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    signature: Bytes[signatures.MAX_LENGTH],
):
    extcall USDC.receiveWithAuthorization(sender, self, amount, valid_after, valid_before, nonce, signature)
    self._check_covered()


@internal
@view
def _check_covered():
    # a token that keeps a part of what it moves is refused
    assert staticcall USDC.balanceOf(self) >= self._owed(), "vault: received too little"


@internal
def _credit(account: address, amount: uint256):
    self.balances[account] += amount


@internal
def _spend(account: address, amount: uint256):
    """
    @dev Turn a balance into escrow: what is owed stays the same.
    """
    balance: uint256 = self.balances[account]
    assert amount <= balance, "vault: balance too low"
    self.balances[account] = balance - amount
    log IClearingVault.BalanceSpent(account=account, amount=amount)


@internal
def _withdraw_all(account: address) -> uint256:
    amount: uint256 = self.balances[account]
    self._withdraw(account, account, amount)
    return amount


@internal
def _withdraw(account: address, to: address, amount: uint256):
    assert amount != 0, "vault: nothing to withdraw"
    balance: uint256 = self.balances[account]
    assert amount <= balance, "vault: balance too low"
    self.balances[account] = balance - amount
    self._paused_until_and_owed -= amount
    self._send(USDC, to, amount)
    log IClearingVault.Withdrawn(account=account, to=to, amount=amount)


@internal
def _send(token: IUSDC, to: address, amount: uint256):
    assert to != empty(address) and to != self, "vault: receiver is not allowed"
    assert extcall token.transfer(to, amount, default_return_value=True), "vault: transfer failed"
