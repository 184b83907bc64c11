# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title TestUSDC
@license AGPL-3.0-only
@notice Behaves as Circle's FiatToken v2.2: EIP-20, EIP-2612, EIP-3009 (v, r, s and bytes), ERC-1271, blacklist,
        pause and minters, with Circle's revert reasons and EIP-712 domain. For tests and local chains only.
@dev Meant to stand behind `TestUSDCProxy`. Vyper has no overloads by type, so the variants that take the
     signature as v, r, s are dispatched in `__default__`.
"""
event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    amount: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    amount: uint256


event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event Blacklisted:
    account: indexed(address)


event UnBlacklisted:
    account: indexed(address)


event Pause:
    pass


event Unpause:
    pass


interface IWallet:
    def isValidSignature(digest: bytes32, signature: Bytes[1024]) -> bytes4: view

DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PERMIT_TYPE_HASH: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_TYPE_HASH: constant(bytes32) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_TYPE_HASH: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_TYPE_HASH: constant(bytes32) = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")

TRANSFER_SELECTOR: constant(bytes4) = method_id(
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", output_type=bytes4
)
RECEIVE_SELECTOR: constant(bytes4) = method_id(
    "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", output_type=bytes4
)
CANCEL_SELECTOR: constant(bytes4) = method_id("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)", output_type=bytes4)
PERMIT_SELECTOR: constant(bytes4) = method_id(
    "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", output_type=bytes4
)
ERC1271_MAGIC: constant(bytes4) = method_id("isValidSignature(bytes32,bytes)", output_type=bytes4)

name: public(constant(String[8])) = "USD Coin"
symbol: public(constant(String[4])) = "USDC"
version: public(constant(String[1])) = "2"
currency: public(constant(String[3])) = "USD"
decimals: public(constant(uint8)) = 6

# the proxy's own slots, kept free here
_implementation: address
_proxy_admin: address
# mints, blacklists and pauses: one account plays all of Circle's roles
admin: public(address)
paused: public(bool)
totalSupply: public(uint256)
# as in v2.2, the top bit is the blacklist and the rest the balance, so a transfer reads one slot an account
_accounts: HashMap[address, uint256]
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
# authorizer -> nonce -> used or cancelled
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])

_BLACKLISTED: constant(uint256) = 1 << 255
_HALF_ORDER: constant(bytes32) = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


@external
def initialize(admin: address):
    """
    @notice Set the admin, once.
    """
    assert self.admin == empty(address), "Initializable: contract is already initialized"
    self.admin = admin
    # as in v2.2, so that nothing is sent to the token by mistake
    self._accounts[self] |= _BLACKLISTED


@external
def mint(to: address, amount: uint256) -> bool:
    self._check_admin()
    self._check_not_paused()
    self._check_not_blacklisted(to)
    assert to != empty(address), "FiatToken: mint to the zero address"
    assert amount > 0, "FiatToken: mint amount not greater than 0"
    self.totalSupply += amount
    self._accounts[to] += amount
    log Transfer(sender=empty(address), receiver=to, amount=amount)
    return True


@external
def blacklist(account: address):
    self._check_admin()
    self._accounts[account] |= _BLACKLISTED
    log Blacklisted(account=account)


@external
def unBlacklist(account: address):
    self._check_admin()
    self._accounts[account] &= ~_BLACKLISTED
    log UnBlacklisted(account=account)


@external
def pause():
    self._check_admin()
    self.paused = True
    log Pause()


@external
def unpause():
    self._check_admin()
    self.paused = False
    log Unpause()


@external
def transfer(to: address, amount: uint256) -> bool:
    self._check_not_paused()
    self._check_not_blacklisted(msg.sender)
    self._check_not_blacklisted(to)
    self._transfer(msg.sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    # as in v2.2, the blacklist stops transfers but not approvals
    self._check_not_paused()
    self._approve(msg.sender, spender, amount)
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self._check_not_paused()
    self._check_not_blacklisted(msg.sender)
    self._check_not_blacklisted(owner)
    self._check_not_blacklisted(to)
    allowed: uint256 = self.allowance[owner][msg.sender]
    assert amount <= allowed, "ERC20: transfer amount exceeds allowance"
    self._transfer(owner, to, amount)
    self.allowance[owner][msg.sender] = allowed - amount
    return True


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, signature: Bytes[1024]):
    self._permit(owner, spender, amount, deadline, signature)


@external
def transferWithAuthorization(
    owner: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    signature: Bytes[1024],
):
    self._authorized_transfer(TRANSFER_TYPE_HASH, owner, to, amount, valid_after, valid_before, nonce, signature)


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
    self._authorized_transfer(RECEIVE_TYPE_HASH, owner, to, amount, valid_after, valid_before, nonce, signature)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, signature: Bytes[1024]):
    self._cancel(authorizer, nonce, signature)


@external
def __default__():
    selector: bytes4 = convert(slice(msg.data, 0, 4), bytes4)
    owner: address = empty(address)
    to: address = empty(address)
    amount: uint256 = 0
    valid_after: uint256 = 0
    valid_before: uint256 = 0
    nonce: bytes32 = empty(bytes32)
    v: uint8 = 0
    r: bytes32 = empty(bytes32)
    s: bytes32 = empty(bytes32)
    if selector == RECEIVE_SELECTOR or selector == TRANSFER_SELECTOR:
        owner, to, amount, valid_after, valid_before, nonce, v, r, s = abi_decode(
            slice(msg.data, 4, 288), (address, address, uint256, uint256, uint256, bytes32, uint8, bytes32, bytes32)
        )
        type_hash: bytes32 = TRANSFER_TYPE_HASH
        if selector == RECEIVE_SELECTOR:
            type_hash = RECEIVE_TYPE_HASH
        self._authorized_transfer(
            type_hash, owner, to, amount, valid_after, valid_before, nonce, self._pack(v, r, s)
        )
    elif selector == CANCEL_SELECTOR:
        owner, nonce, v, r, s = abi_decode(slice(msg.data, 4, 160), (address, bytes32, uint8, bytes32, bytes32))
        self._cancel(owner, nonce, self._pack(v, r, s))
    elif selector == PERMIT_SELECTOR:
        owner, to, amount, valid_before, v, r, s = abi_decode(
            slice(msg.data, 4, 224), (address, address, uint256, uint256, uint8, bytes32, bytes32)
        )
        self._permit(owner, to, amount, valid_before, self._pack(v, r, s))
    else:
        raise "TestUSDC: unknown function"


@external
@view
def balanceOf(account: address) -> uint256:
    return self._accounts[account] & ~_BLACKLISTED


@external
@view
def isBlacklisted(account: address) -> bool:
    return self._accounts[account] & _BLACKLISTED != 0


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    return self._domain_separator()


@internal
def _authorized_transfer(
    type_hash: bytes32,
    owner: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    signature: Bytes[1024],
):
    self._check_not_paused()
    self._check_not_blacklisted(owner)
    self._check_not_blacklisted(to)
    assert type_hash != RECEIVE_TYPE_HASH or to == msg.sender, "FiatTokenV2: caller must be the payee"
    assert block.timestamp > valid_after, "FiatTokenV2: authorization is not yet valid"
    assert block.timestamp < valid_before, "FiatTokenV2: authorization is expired"
    assert not self.authorizationState[owner][nonce], "FiatTokenV2: authorization is used or canceled"
    struct_hash: bytes32 = keccak256(abi_encode(type_hash, owner, to, amount, valid_after, valid_before, nonce))
    assert self._is_signed_by(owner, struct_hash, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[owner][nonce] = True
    log AuthorizationUsed(authorizer=owner, nonce=nonce)
    self._transfer(owner, to, amount)


@internal
def _cancel(authorizer: address, nonce: bytes32, signature: Bytes[1024]):
    self._check_not_paused()
    assert not self.authorizationState[authorizer][nonce], "FiatTokenV2: authorization is used or canceled"
    struct_hash: bytes32 = keccak256(abi_encode(CANCEL_TYPE_HASH, authorizer, nonce))
    assert self._is_signed_by(authorizer, struct_hash, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@internal
def _permit(owner: address, spender: address, amount: uint256, deadline: uint256, signature: Bytes[1024]):
    self._check_not_paused()
    assert deadline >= block.timestamp, "FiatTokenV2: permit is expired"
    nonce: uint256 = self.nonces[owner]
    self.nonces[owner] = nonce + 1
    struct_hash: bytes32 = keccak256(abi_encode(PERMIT_TYPE_HASH, owner, spender, amount, nonce, deadline))
    assert self._is_signed_by(owner, struct_hash, signature), "EIP2612: invalid signature"
    self._approve(owner, spender, amount)


@internal
def _transfer(owner: address, to: address, amount: uint256):
    assert owner != empty(address), "ERC20: transfer from the zero address"
    assert to != empty(address), "ERC20: transfer to the zero address"
    assert amount <= self._accounts[owner], "ERC20: transfer amount exceeds balance"
    self._accounts[owner] -= amount
    self._accounts[to] += amount
    log Transfer(sender=owner, receiver=to, amount=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    assert owner != empty(address), "ERC20: approve from the zero address"
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, amount=amount)


@internal
@view
def _is_signed_by(signer: address, struct_hash: bytes32, signature: Bytes[1024]) -> bool:
    digest: bytes32 = keccak256(concat(x"1901", self._domain_separator(), struct_hash))
    if signer.is_contract:
        success: bool = False
        answer: Bytes[32] = b""
        success, answer = raw_call(
            signer,
            abi_encode(digest, signature, method_id=ERC1271_MAGIC),
            max_outsize=32,
            is_static_call=True,
            revert_on_failure=False,
        )
        return success and len(answer) == 32 and convert(answer, bytes32) == convert(ERC1271_MAGIC, bytes32)
    assert len(signature) == 65, "ECRecover: invalid signature length"
    r: uint256 = extract32(signature, 0, output_type=uint256)
    s: uint256 = extract32(signature, 32, output_type=uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    assert s <= convert(_HALF_ORDER, uint256), "ECRecover: invalid signature 's' value"
    assert v == 27 or v == 28, "ECRecover: invalid signature 'v' value"
    recovered: address = ecrecover(digest, v, r, s)
    assert recovered != empty(address), "ECRecover: invalid signature"
    return recovered == signer


@internal
@pure
def _pack(v: uint8, r: bytes32, s: bytes32) -> Bytes[65]:
    return concat(r, s, convert(v, bytes1))


@internal
@view
def _domain_separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE_HASH, keccak256(name), keccak256(version), chain.id, self))


@internal
@view
def _check_admin():
    assert msg.sender == self.admin, "Ownable: caller is not the owner"


@internal
@view
def _check_not_paused():
    assert not self.paused, "Pausable: paused"


@internal
@view
def _check_not_blacklisted(account: address):
    assert self._accounts[account] & _BLACKLISTED == 0, "Blacklistable: account is blacklisted"
