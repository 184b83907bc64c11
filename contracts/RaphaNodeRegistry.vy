# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title RaphaNodeRegistry
@license AGPL-3.0-only
@notice A hospital's node is an ERC-721 token: whoever holds it is the node's owner and gets the owner's share.
        Before a node's token moves, its treasury changes or its shares change, the vault settles who is paid
        for what was earned so far; so nobody buys or loses old earnings.
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import INodeRegistry
from contracts.modules import governance
from snekmate.auth import ownable
from snekmate.tokens import erc721

implements: INodeRegistry

initializes: ownable
initializes: governance[ownable := ownable]
initializes: erc721[ownable := ownable]

exports: (
    governance.owner,
    governance.pending_owner,
    governance.transfer_ownership,
    governance.accept_ownership,
    governance.guardian,
    governance.set_guardian,
    erc721.name,
    erc721.symbol,
    erc721.supportsInterface,
    erc721.balanceOf,
    erc721.ownerOf,
    erc721.getApproved,
    erc721.setApprovalForAll,
    erc721.isApprovedForAll,
    erc721.totalSupply,
    erc721.tokenByIndex,
    erc721.tokenOfOwnerByIndex,
)

# basis points of a new node's earnings; the hospital gets the rest, 7,000, and what rounding leaves
NODE_OWNER_BPS: constant(uint256) = 2_000
ONBOARDER_BPS: constant(uint256) = 500
PROTOCOL_BPS: constant(uint256) = 500
# what governance cannot go beyond: the hospital's least share, and the protocol's greatest
MIN_HOSPITAL_BPS: constant(uint256) = 5_000
MAX_PROTOCOL_BPS: constant(uint256) = 1_000
BPS: constant(uint256) = 10_000
# the vault keeps node ids in 22 bits
MAX_NODES: constant(uint256) = 2**22 - 1

# a node's status
ACTIVE: constant(uint256) = 1
SUSPENDED: constant(uint256) = 2
RETIRED: constant(uint256) = 3

# a node's word: status at 208, and at 192, 176 and 160 the shares of node owner, onboarder and protocol, 16 bits
# each, in basis points; the hospital's treasury in the low 160 bits: one slot to read when a job opens
_16: constant(uint256) = 2**16 - 1
_160: constant(uint256) = 2**160 - 1

VAULT: immutable(IClearingVault)
PROTOCOL: immutable(address)

struct Node:
    status: uint256
    hospital: address
    onboarder: address
    hardware_hash: bytes32


# may register nodes
registrar: public(address)
# how many nodes there are; ids run from 1
node_count: public(uint256)
# node id -> status, shares and treasury
_words: HashMap[uint256, uint256]
# node id -> who brought the hospital in
_onboarders: HashMap[uint256, address]
# node id -> salted digest of the machine's identity
_hardware_hashes: HashMap[uint256, bytes32]
# node id -> the treasury that the hospital wants to be paid at
proposed_treasury: public(HashMap[uint256, address])
# hardware hash -> node id, so that one machine is one node
node_of_hardware: public(HashMap[bytes32, uint256])


@deploy
def __init__(owner: address, guardian: address, registrar: address, protocol: address, vault: address):
    """
    @param owner The timelock.
    @param guardian May suspend nodes at once.
    @param registrar May register nodes.
    @param protocol Gets the protocol's share.
    @param vault The clearing vault, which may be deployed after this registry.
    """
    ownable.__init__()
    governance.__init__(owner, guardian)
    erc721.__init__("Rapha Node", "RNODE", "", "RaphaNodeRegistry", "1")
    # erc721's own minter role is not used: minting goes through `register_node` alone
    erc721.is_minter[msg.sender] = False
    assert protocol != empty(address), "nodes: payee is zero"
    assert vault != empty(address), "nodes: vault is zero"
    PROTOCOL = protocol
    VAULT = IClearingVault(vault)
    self._check_receiver(protocol)
    self._set_registrar(registrar)


@external
def register_node(node_owner: address, hospital: address, onboarder: address, hardware_hash: bytes32) -> uint256:
    """
    @notice Register a hospital's machine. Registrar or owner only.
    @param node_owner Gets the node's token and with it the owner's share.
    @param hospital The hospital's treasury.
    @param onboarder Who brought the hospital in.
    @param hardware_hash Salted digest of the machine's identity; one node each, for ever.
    @return The node's id.
    """
    assert msg.sender == self.registrar or msg.sender == ownable.owner, "nodes: caller is not the registrar"
    assert node_owner != empty(address) and hospital != empty(address) and onboarder != empty(address), "nodes: payee is zero"
    assert hardware_hash != empty(bytes32), "nodes: hardware hash is zero"
    assert self.node_of_hardware[hardware_hash] == 0, "nodes: hardware already registered"
    node_id: uint256 = self.node_count + 1
    assert node_id <= MAX_NODES, "nodes: registry is full"
    self._check_receiver(node_owner)
    self._check_receiver(hospital)
    self._check_receiver(onboarder)
    self.node_count = node_id
    self.node_of_hardware[hardware_hash] = node_id
    self._hardware_hashes[node_id] = hardware_hash
    self._onboarders[node_id] = onboarder
    self._words[node_id] = (
        ACTIVE << 208 | self._pack_shares(NODE_OWNER_BPS, ONBOARDER_BPS, PROTOCOL_BPS) | convert(hospital, uint256)
    )
    erc721._mint(node_owner, node_id)
    extcall VAULT.set_active(node_id, True)
    log INodeRegistry.NodeRegistered(
        node_id=node_id, node_owner=node_owner, hospital=hospital, onboarder=onboarder, hardware_hash=hardware_hash
    )
    return node_id


@external
def approve(to: address, token_id: uint256):
    """
    @notice Let an account move a node's token. Its holder, or who is approved for all of the holder's tokens.
            ERC-721 declares it payable; native coin would stay here for ever, so this takes none.
    """
    holder: address = erc721._owner_of(token_id)
    assert to != holder, "erc721: approval to current owner"
    assert msg.sender == holder or erc721.isApprovedForAll[holder][msg.sender], "erc721: approve caller is not token owner or approved for all"
    erc721._approve(to, token_id)


@external
def transferFrom(owner: address, to: address, token_id: uint256):
    """
    @notice Move a node's token, after the vault has settled who is paid for what it earned so far.
    """
    self._check_and_settle(to, token_id)
    erc721._transfer(owner, to, token_id)


@external
def safeTransferFrom(owner: address, to: address, token_id: uint256, data: Bytes[1_024] = b""):
    """
    @notice The same, to a receiver that knows ERC-721.
    """
    self._check_and_settle(to, token_id)
    erc721._safe_transfer(owner, to, token_id, data)


@external
def propose_treasury(node_id: uint256, treasury: address):
    """
    @notice Name the address that the hospital wants to be paid at from now on. The present treasury only.
    @param treasury It must accept; zero takes the proposal back.
    """
    assert msg.sender == self._hospital(node_id), "nodes: caller is not the hospital"
    self.proposed_treasury[node_id] = treasury
    log INodeRegistry.TreasuryProposed(node_id=node_id, treasury=treasury)


@external
def accept_treasury(node_id: uint256):
    """
    @notice Become a hospital's treasury, after the vault has settled who is paid for what was earned so far.
            The proposed treasury only.
    """
    self._check_registered(node_id)
    assert msg.sender == self.proposed_treasury[node_id], "nodes: caller is not proposed"
    extcall VAULT.checkpoint(node_id)
    word: uint256 = self._words[node_id]
    previous: address = convert(convert(word & _160, uint160), address)
    self._words[node_id] = word & ~_160 | convert(msg.sender, uint256)
    self.proposed_treasury[node_id] = empty(address)
    log INodeRegistry.TreasuryChanged(node_id=node_id, previous_treasury=previous, new_treasury=msg.sender)


@external
def set_shares(node_id: uint256, node_owner_bps: uint256, onboarder_bps: uint256, protocol_bps: uint256):
    """
    @notice Change how a node's future earnings are split. Owner only. The hospital gets the rest, at least half.
    @param node_owner_bps Share of the token's holder, in basis points.
    @param onboarder_bps Share of the onboarder.
    @param protocol_bps Share of the protocol, at most a tenth.
    """
    ownable._check_owner()
    self._check_registered(node_id)
    assert protocol_bps <= MAX_PROTOCOL_BPS, "nodes: protocol share too high"
    # each first, so that the sum cannot overflow
    assert node_owner_bps <= BPS and onboarder_bps <= BPS, "nodes: hospital share too low"
    assert node_owner_bps + onboarder_bps + protocol_bps <= BPS - MIN_HOSPITAL_BPS, "nodes: hospital share too low"
    extcall VAULT.checkpoint(node_id)
    word: uint256 = self._words[node_id]
    self._words[node_id] = (
        (word >> 208) << 208 | self._pack_shares(node_owner_bps, onboarder_bps, protocol_bps) | word & _160
    )
    log INodeRegistry.SharesChanged(
        node_id=node_id, node_owner_bps=node_owner_bps, onboarder_bps=onboarder_bps, protocol_bps=protocol_bps
    )


@external
def suspend(node_id: uint256):
    """
    @notice Stop new jobs for a node at once. Guardian or owner. Work already done stays payable.
    """
    governance._check_guardian()
    self._check_registered(node_id)
    assert self._status(node_id) != RETIRED, "nodes: node is retired"
    self._set_status(node_id, SUSPENDED)
    log INodeRegistry.NodeSuspended(node_id=node_id)


@external
def resume(node_id: uint256):
    """
    @notice Let a suspended node take jobs again. Owner only.
    """
    ownable._check_owner()
    self._check_registered(node_id)
    assert self._status(node_id) != RETIRED, "nodes: node is retired"
    self._set_status(node_id, ACTIVE)
    log INodeRegistry.NodeResumed(node_id=node_id)


@external
def retire(node_id: uint256):
    """
    @notice End a node for good: it takes no new jobs, and its hardware cannot be registered again. Its hospital,
            or the owner of this registry. Work already done stays payable.
    """
    self._check_registered(node_id)
    assert msg.sender == self._hospital(node_id) or msg.sender == ownable.owner, "nodes: caller is not the hospital"
    assert self._status(node_id) != RETIRED, "nodes: node is retired"
    self._set_status(node_id, RETIRED)
    log INodeRegistry.NodeRetired(node_id=node_id)


@external
def set_registrar(new_registrar: address):
    """
    @notice Replace the registrar. Owner only.
    """
    ownable._check_owner()
    self._set_registrar(new_registrar)


@external
@view
@reentrant
def vault() -> address:
    """
    @notice The vault whose earnings this registry's payees share.
    """
    return VAULT.address


@external
@view
def is_active(node_id: uint256) -> bool:
    """
    @notice Whether a node is registered and takes new jobs.
    """
    return self._status(node_id) == ACTIVE


@external
@view
@reentrant
def payees(node_id: uint256) -> INodeRegistry.Payees:
    """
    @notice Who shares what the node earns, and how.
    """
    # reentrant, because the vault asks for it in the middle of a change's checkpoint
    word: uint256 = self._words[node_id]
    assert word != 0, "nodes: node is not registered"
    return INodeRegistry.Payees(
        hospital=convert(convert(word & _160, uint160), address),
        node_owner=erc721._owner_of(node_id),
        onboarder=self._onboarders[node_id],
        protocol=PROTOCOL,
        node_owner_bps=(word >> 192) & _16,
        onboarder_bps=(word >> 176) & _16,
        protocol_bps=(word >> 160) & _16,
    )


@external
@view
def node(node_id: uint256) -> Node:
    """
    @notice What is registered for a node. Status is 1 active, 2 suspended, 3 retired.
    """
    self._check_registered(node_id)
    return Node(
        status=self._status(node_id),
        hospital=self._hospital(node_id),
        onboarder=self._onboarders[node_id],
        hardware_hash=self._hardware_hashes[node_id],
    )


@external
@view
def tokenURI(token_id: uint256) -> String[512]:
    """
    @notice The node's ERC-721 metadata as a JSON data URI, made here: it depends on no server.
    """
    erc721._require_minted(token_id)
    word: uint256 = self._words[token_id]
    status: String[9] = "active"
    if word >> 208 == SUSPENDED:
        status = "suspended"
    elif word >> 208 == RETIRED:
        status = "retired"
    return concat(
        'data:application/json;utf8,{"name":"Rapha Node ',
        uint2str(token_id),
        '","description":"A hospital machine that trains models on records which never leave it.",',
        '"attributes":[{"trait_type":"status","value":"',
        status,
        '"},{"trait_type":"node owner share, basis points","value":',
        uint2str((word >> 192) & _16),
        "}]}",
    )


@internal
def _check_and_settle(to: address, node_id: uint256):
    assert erc721._is_approved_or_owner(msg.sender, node_id), "erc721: caller is not token owner or approved"
    self._check_receiver(to)
    extcall VAULT.checkpoint(node_id)


@internal
@view
def _check_receiver(to: address):
    # neither could ever give back what it is given
    assert to != VAULT.address and to != self, "nodes: receiver is not allowed"


@internal
def _set_registrar(new_registrar: address):
    log INodeRegistry.RegistrarChanged(previous_registrar=self.registrar, new_registrar=new_registrar)
    self.registrar = new_registrar


@internal
def _set_status(node_id: uint256, status: uint256):
    self._words[node_id] = status << 208 | self._words[node_id] & (2**208 - 1)
    extcall VAULT.set_active(node_id, status == ACTIVE)


@internal
@view
def _status(node_id: uint256) -> uint256:
    return self._words[node_id] >> 208


@internal
@view
def _hospital(node_id: uint256) -> address:
    return convert(convert(self._words[node_id] & _160, uint160), address)


@internal
@pure
def _pack_shares(node_owner_bps: uint256, onboarder_bps: uint256, protocol_bps: uint256) -> uint256:
    return node_owner_bps << 192 | onboarder_bps << 176 | protocol_bps << 160


@internal
@view
def _check_registered(node_id: uint256):
    assert self._words[node_id] != 0, "nodes: node is not registered"
