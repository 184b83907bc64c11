# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title EnclaveRegistry
@license AGPL-3.0-only
@notice Which enclave keys may sign receipts for which node, and until when. The committee vouches for a key
        by M-of-N signatures; the guardian revokes keys and measurements at once, and for good.
"""
from contracts.interfaces import IEnclaveRegistry
from contracts.modules import committee
from contracts.modules import governance
from contracts.modules import typed_data
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

implements: IEnclaveRegistry

initializes: ownable
initializes: governance[ownable := ownable]
initializes: committee
initializes: eip712_domain_separator

exports: (
    governance.owner,
    governance.pending_owner,
    governance.transfer_ownership,
    governance.accept_ownership,
    governance.guardian,
    governance.set_guardian,
    committee.epoch,
    committee.threshold,
    committee.is_member,
    eip712_domain_separator.eip712Domain,
)

# no registration outlives the collateral behind it by much
MAX_VALIDITY: constant(uint64) = 31 * 24 * 60 * 60

_NODE_SHIFT: constant(uint256) = 64
_MEASUREMENT_SHIFT: constant(uint256) = 128
_REVOKED: constant(uint256) = 1 << 255
_UINT64: constant(uint256) = 2**64 - 1

struct Enclave:
    node_id: uint64
    expiry: uint64
    measurement: bytes32
    revoked: bool


# enclave key -> revoked (bit 255), measurement number (128), node id (64), expiry (0): one slot to read
_enclaves: HashMap[address, uint256]
# measurement -> its number, from 1
_number_of: HashMap[bytes32, uint256]
# number -> measurement
_measurement_of: HashMap[uint256, bytes32]
# number -> allowed now
_allowed: HashMap[uint256, bool]
# how many measurements were ever allowed
_measurement_count: uint256


@deploy
def __init__(
    owner: address,
    guardian: address,
    members: DynArray[address, committee.MAX_MEMBERS],
    threshold: uint256,
    measurements: DynArray[bytes32, 16],
):
    """
    @param owner The timelock.
    @param guardian May revoke keys and measurements at once.
    @param members The committee, sorted by address.
    @param threshold How many of them must sign.
    @param measurements The enclave measurements that are allowed from the start.
    """
    ownable.__init__()
    governance.__init__(owner, guardian)
    committee.__init__(members, threshold)
    eip712_domain_separator.__init__("RaphaEnclaveRegistry", "1")
    for measurement: bytes32 in measurements:
        self._allow_measurement(measurement)


@external
def register(
    registration: typed_data.EnclaveRegistration, signatures: Bytes[committee.MAX_SIGNATURES_LENGTH]
):
    """
    @notice Register or renew an enclave key. Anyone may bring what the committee signed.
    @param registration What the committee vouches for.
    @param signatures Of members over its EIP-712 digest: 65 bytes (r, s, v) each, sorted by signer.
    """
    assert registration.epoch == committee.epoch, "enclaves: signed for another committee"
    assert registration.enclave_key != empty(address), "enclaves: key is zero"
    assert registration.node_id != 0, "enclaves: node is zero"
    assert convert(registration.expiry, uint256) > block.timestamp, "enclaves: registration has expired"
    assert convert(registration.expiry, uint256) <= block.timestamp + convert(MAX_VALIDITY, uint256), "enclaves: expiry too far ahead"
    number: uint256 = self._number_of[registration.measurement]
    assert self._allowed[number], "enclaves: measurement is not allowed"
    known: uint256 = self._enclaves[registration.enclave_key]
    if known != 0:
        assert known & _REVOKED == 0, "enclaves: key is revoked"
        assert (known >> _NODE_SHIFT) & _UINT64 == convert(registration.node_id, uint256), "enclaves: key belongs to another node"
        # so that an old registration cannot shorten a newer one
        assert convert(registration.expiry, uint256) > known & _UINT64, "enclaves: registration is not newer"
    committee._check_signatures(self._registration_digest(registration), signatures)
    self._enclaves[registration.enclave_key] = (
        number << _MEASUREMENT_SHIFT
        | convert(registration.node_id, uint256) << _NODE_SHIFT
        | convert(registration.expiry, uint256)
    )
    log IEnclaveRegistry.EnclaveRegistered(
        enclave_key=registration.enclave_key,
        node_id=registration.node_id,
        measurement=registration.measurement,
        attestation_digest=registration.attestation_digest,
        encryption_key_digest=registration.encryption_key_digest,
        expiry=registration.expiry,
    )


@external
def revoke(enclave_key: address):
    """
    @notice Revoke an enclave key at once and for good, known or not. Guardian or owner.
    """
    governance._check_guardian()
    self._enclaves[enclave_key] |= _REVOKED
    log IEnclaveRegistry.EnclaveRevoked(enclave_key=enclave_key)


@external
def revoke_measurement(measurement: bytes32):
    """
    @notice Revoke a measurement, and so every key that runs it, at once. Guardian or owner.
    """
    governance._check_guardian()
    number: uint256 = self._number_of[measurement]
    assert self._allowed[number], "enclaves: measurement is not allowed"
    self._allowed[number] = False
    log IEnclaveRegistry.MeasurementRevoked(measurement=measurement)


@external
def allow_measurement(measurement: bytes32):
    """
    @notice Allow an enclave measurement. Owner only.
    """
    ownable._check_owner()
    self._allow_measurement(measurement)


@external
def set_committee(members: DynArray[address, committee.MAX_MEMBERS], threshold: uint256):
    """
    @notice Replace the committee. Owner only. What the old one signed can no longer be registered; keys that
            it registered stay until they expire or are revoked.
    """
    ownable._check_owner()
    committee._set_committee(members, threshold)


@external
@view
@reentrant
def is_valid(enclave_key: address, node_id: uint256) -> bool:
    """
    @notice Whether receipts by this key count for this node now: registered for it, unexpired, unrevoked,
            with an allowed measurement.
    """
    known: uint256 = self._enclaves[enclave_key]
    # an unknown key has measurement 0 and a revoked one a number beyond all; neither is ever allowed
    return (
        (known >> _NODE_SHIFT) & _UINT64 == node_id
        and known & _UINT64 > block.timestamp
        and self._allowed[known >> _MEASUREMENT_SHIFT]
    )


@external
@view
def enclave(enclave_key: address) -> Enclave:
    """
    @notice What is registered for a key; all zero when nothing is.
    """
    known: uint256 = self._enclaves[enclave_key]
    return Enclave(
        node_id=convert((known >> _NODE_SHIFT) & _UINT64, uint64),
        expiry=convert(known & _UINT64, uint64),
        measurement=self._measurement_of[(known & ~_REVOKED) >> _MEASUREMENT_SHIFT],
        revoked=known & _REVOKED != 0,
    )


@external
@view
def is_measurement_allowed(measurement: bytes32) -> bool:
    """
    @notice Whether enclaves with this measurement may be registered and their receipts count.
    """
    return self._allowed[self._number_of[measurement]]


@external
@view
def is_signed(digest: bytes32, signatures: Bytes[committee.MAX_SIGNATURES_LENGTH]) -> bool:
    """
    @notice Whether the present committee has signed a digest; where it has not, the call reverts and says why.
    @param digest An EIP-712 digest, in the domain of whoever asks.
    @param signatures Of members: 65 bytes (r, s, v) each, sorted by signer.
    """
    committee._check_signatures(digest, signatures)
    return True


@external
@view
def registration_digest(registration: typed_data.EnclaveRegistration) -> bytes32:
    """
    @notice The EIP-712 digest that committee members sign.
    """
    return self._registration_digest(registration)


@internal
@view
def _registration_digest(registration: typed_data.EnclaveRegistration) -> bytes32:
    return typed_data._digest(
        eip712_domain_separator._domain_separator_v4(), typed_data._registration_hash(registration)
    )


@internal
def _allow_measurement(measurement: bytes32):
    assert measurement != empty(bytes32), "enclaves: measurement is zero"
    number: uint256 = self._number_of[measurement]
    if number == 0:
        number = self._measurement_count + 1
        self._measurement_count = number
        self._number_of[measurement] = number
        self._measurement_of[number] = measurement
    self._allowed[number] = True
    log IEnclaveRegistry.MeasurementAllowed(measurement=measurement)
