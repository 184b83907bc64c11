# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title RaphaNodeRegistry
@license AGPL-3.0-only
@notice A hospital's node is an ERC-721 token: whoever holds it is the node's owner and gets the owner's share.
        What a node has earned is split before its token moves, so nobody buys or loses old earnings.
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
    erc721.approve,
    erc721.getApproved,
    erc721.setApprovalForAll,
    erc721.isApprovedForAll,
    erc721.tokenURI,
    erc721.totalSupply,
    erc721.tokenByIndex,
    erc721.tokenOfOwnerByIndex,
)

# basis points; the hospital gets the rest, 7,000, and what rounding leaves
NODE_OWNER_BPS: constant(uint256) = 2_000
ONBOARDER_BPS: constant(uint256) = 500
PROTOCOL_BPS: constant(uint256) = 500

VAULT: immutable(IClearingVault)
PROTOCOL: immutable(address)

struct Node:
    hospital: address
    onboarder: address
    hardware_hash: bytes32
    suspended: bool


# may register nodes
registrar: public(address)
# how many nodes there are; ids run from 1
node_count: public(uint256)
# by node id
_nodes: HashMap[uint256, Node]
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
    self.node_count = node_id
    self.node_of_hardware[hardware_hash] = node_id
    self._nodes[node_id] = Node(
        hospital=hospital, onboarder=onboarder, hardware_hash=hardware_hash, suspended=False
    )
    erc721._mint(node_owner, node_id)
    log INodeRegistry.NodeRegistered(
        node_id=node_id, node_owner=node_owner, hospital=hospital, onboarder=onboarder, hardware_hash=hardware_hash
    )
    return node_id


@external
def transferFrom(owner: address, to: address, token_id: uint256):
    """
    @notice Move a node's token, after what it earned so far is split among the present payees.
    """
    self._settle_and_check(token_id)
    erc721._transfer(owner, to, token_id)


@external
def safeTransferFrom(owner: address, to: address, token_id: uint256, data: Bytes[1_024] = b""):
    """
    @notice The same, to a receiver that knows ERC-721.
    """
    self._settle_and_check(token_id)
    erc721._safe_transfer(owner, to, token_id, data)


@external
def suspend(node_id: uint256):
    """
    @notice Stop new jobs for a node at once. Guardian or owner. Work already done stays payable.
    """
    governance._check_guardian()
    self._check_registered(node_id)
    self._nodes[node_id].suspended = True
    log INodeRegistry.NodeSuspended(node_id=node_id)


@external
def resume(node_id: uint256):
    """
    @notice Let a suspended node take jobs again. Owner only.
    """
    ownable._check_owner()
    self._check_registered(node_id)
    self._nodes[node_id].suspended = False
    log INodeRegistry.NodeResumed(node_id=node_id)


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
@reentrant
def is_active(node_id: uint256) -> bool:
    """
    @notice Whether a node is registered and takes new jobs.
    """
    return self._nodes[node_id].hospital != empty(address) and not self._nodes[node_id].suspended


@external
@view
@reentrant
def payees(node_id: uint256) -> INodeRegistry.Payees:
    """
    @notice Who shares what the node earns, and how.
    """
    # reentrant, because the vault asks for it in the middle of a transfer's checkpoint
    self._check_registered(node_id)
    return INodeRegistry.Payees(
        hospital=self._nodes[node_id].hospital,
        node_owner=erc721._owner_of(node_id),
        onboarder=self._nodes[node_id].onboarder,
        protocol=PROTOCOL,
        node_owner_bps=NODE_OWNER_BPS,
        onboarder_bps=ONBOARDER_BPS,
        protocol_bps=PROTOCOL_BPS,
    )


@external
@view
def node(node_id: uint256) -> Node:
    """
    @notice What was registered for a node.
    """
    self._check_registered(node_id)
    return self._nodes[node_id]


@internal
def _settle_and_check(node_id: uint256):
    assert erc721._is_approved_or_owner(msg.sender, node_id), "erc721: caller is not token owner or approved"
    extcall VAULT.distribute(node_id)


@internal
def _set_registrar(new_registrar: address):
    log INodeRegistry.RegistrarChanged(previous_registrar=self.registrar, new_registrar=new_registrar)
    self.registrar = new_registrar


@internal
@view
def _check_registered(node_id: uint256):
    assert self._nodes[node_id].hospital != empty(address), "nodes: node is not registered"
