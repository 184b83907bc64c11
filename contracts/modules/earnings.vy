# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Earnings: what nodes have earned, when it matures, and who shares it
@license AGPL-3.0-only
@dev A node's payees have a version. When they change while something has not matured or is disputed, the old
     version keeps it, with the payees of then; so nobody gains or loses by a transfer.
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import INodeRegistry
from contracts.modules import custody
from contracts.modules import words

uses: custody

MAX_NODES: constant(uint256) = 50
MIN_WINDOW: constant(uint256) = 60 * 60
MAX_WINDOW: constant(uint256) = 30 * 24 * 60 * 60

NODES: immutable(INodeRegistry)
# seconds that fresh earnings wait at least before they can be distributed; twice as many at most
WINDOW: immutable(uint256)

# node id -> packed earnings of its present payees
_present: HashMap[uint256, uint256]
# node id -> version -> packed earnings of earlier payees
_past: HashMap[uint256, HashMap[uint256, uint256]]
# node id -> version -> those payees
_past_payees: HashMap[uint256, HashMap[uint256, INodeRegistry.Payees]]


@deploy
def __init__(nodes: INodeRegistry, window: uint256):
    assert staticcall nodes.vault() == self, "vault: node registry serves another vault"
    assert window == 0 or (window >= MIN_WINDOW and window <= MAX_WINDOW), "vault: window out of range"
    NODES = nodes
    WINDOW = window


@external
def distribute(node_id: uint256) -> uint256:
    """
    @notice Split what a node has earned among its payees, as far as it has matured. Anyone, also while paused.
    @return What was split, in USDC base units; zero when there was nothing.
    """
    return self._distribute(node_id)


@external
def distribute_many(node_ids: DynArray[uint256, MAX_NODES]) -> uint256:
    """
    @notice The same for many nodes.
    @return What was split in all, in USDC base units.
    """
    total: uint256 = 0
    for node_id: uint256 in node_ids:
        total += self._distribute(node_id)
    return total


@external
def distribute_past(node_id: uint256, version: uint256) -> uint256:
    """
    @notice Split what earlier payees of a node have earned, as far as it has matured. Anyone, also while paused.
    @param version The payee set, as in `PayeesChanged`.
    @return What was split, in USDC base units.
    """
    earnings: words.Earnings = self._load_past(node_id, version)
    amount: uint256 = earnings.matured
    if amount != 0:
        earnings.matured = 0
        self._past[node_id][version] = words._pack_earnings(earnings)
        self._split(node_id, version, amount, self._past_payees[node_id][version])
    return amount


@external
def checkpoint(node_id: uint256):
    """
    @notice Settle who is paid, before a node's payees or their shares change. The node registry only.
    """
    self._check_registry()
    self._distribute(node_id)
    earnings: words.Earnings = self._load(node_id)
    if earnings.fresh | earnings.earlier | earnings.disputes != 0:
        version: uint256 = earnings.version
        assert version < words.MAX_VERSION, "vault: payees changed too often"
        self._past[node_id][version] = words._pack_earnings(earnings)
        self._past_payees[node_id][version] = staticcall NODES.payees(node_id)
        self._present[node_id] = words._pack_earnings(
            words.Earnings(
                matured=0, fresh=0, earlier=0, version=version + 1, period=earnings.period, disputes=0
            )
        )
        log IClearingVault.PayeesChanged(node_id=node_id, version=version + 1)


@external
@view
def earnings_of(node_id: uint256) -> words.Earnings:
    """
    @notice What a node's present payees have earned and not yet split, in USDC base units.
    """
    return self._load(node_id)


@external
@view
def past_earnings_of(node_id: uint256, version: uint256) -> words.Earnings:
    """
    @notice What a node's payees of an earlier version have earned and not yet split, in USDC base units.
    """
    return self._load_past(node_id, version)


@external
@view
def nodes() -> address:
    """
    @notice The node registry.
    """
    return NODES.address


@external
@view
def challenge_window() -> uint256:
    """
    @notice Seconds that fresh earnings wait at least before they can be distributed; twice as many at most.
    """
    return WINDOW


@internal
@view
def _check_registry():
    assert msg.sender == NODES.address, "vault: caller is not registry"


@internal
@view
def _period() -> uint256:
    return 0 if WINDOW == 0 else block.timestamp // WINDOW


@internal
@view
def _load(node_id: uint256) -> words.Earnings:
    return words._roll_earnings(words._unpack_earnings(self._present[node_id]), self._period())


@internal
@view
def _load_past(node_id: uint256, version: uint256) -> words.Earnings:
    return words._roll_earnings(words._unpack_earnings(self._past[node_id][version]), self._period())


@internal
@view
def _load_rolled(node_id: uint256, period: uint256) -> uint256:
    word: uint256 = self._present[node_id]
    return words._pack_earnings(words._roll_earnings(words._unpack_earnings(word), period))


@internal
def _store_word(node_id: uint256, word: uint256):
    self._present[node_id] = word


@internal
@view
def _load_version(node_id: uint256, version: uint256) -> words.Earnings:
    present: words.Earnings = self._load(node_id)
    if present.version == version:
        return present
    return self._load_past(node_id, version)


@internal
def _store_version(node_id: uint256, earnings: words.Earnings):
    present: words.Earnings = words._unpack_earnings(self._present[node_id])
    if present.version == earnings.version:
        self._present[node_id] = words._pack_earnings(earnings)
    else:
        self._past[node_id][earnings.version] = words._pack_earnings(earnings)


@internal
def _distribute(node_id: uint256) -> uint256:
    earnings: words.Earnings = self._load(node_id)
    amount: uint256 = earnings.matured
    if amount != 0:
        earnings.matured = 0
        self._present[node_id] = words._pack_earnings(earnings)
        self._split(node_id, earnings.version, amount, staticcall NODES.payees(node_id))
    return amount


@internal
def _split(node_id: uint256, version: uint256, amount: uint256, payees: INodeRegistry.Payees):
    node_owner_amount: uint256 = words._share(amount, payees.node_owner_bps)
    onboarder_amount: uint256 = words._share(amount, payees.onboarder_bps)
    protocol_amount: uint256 = words._share(amount, payees.protocol_bps)
    hospital_amount: uint256 = amount - node_owner_amount - onboarder_amount - protocol_amount
    custody._credit(payees.hospital, hospital_amount)
    custody._credit(payees.node_owner, node_owner_amount)
    custody._credit(payees.onboarder, onboarder_amount)
    custody._credit(payees.protocol, protocol_amount)
    log IClearingVault.Distributed(
        node_id=node_id,
        hospital=payees.hospital,
        version=version,
        node_owner=payees.node_owner,
        onboarder=payees.onboarder,
        protocol=payees.protocol,
        hospital_amount=hospital_amount,
        node_owner_amount=node_owner_amount,
        onboarder_amount=onboarder_amount,
        protocol_amount=protocol_amount,
    )
