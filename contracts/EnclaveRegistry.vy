# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title EnclaveRegistry
@license AGPL-3.0-only
@notice Which enclave keys may sign receipts for which node, and until when. A key is registered by a quote, checked
        here down to Intel's root, from a platform that the committee has judged; or by M-of-N signatures of the
        committee alone. The guardian revokes keys, measurements and platforms at once.
"""
from contracts.interfaces import ICommittee
from contracts.interfaces import IEnclaveRegistry
from contracts.interfaces import IPlatforms
from contracts.modules import dcap_quote
from contracts.modules import governance
from contracts.modules import platforms
from contracts.modules import typed_data
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

implements: IEnclaveRegistry

initializes: ownable
initializes: governance[ownable := ownable]
initializes: platforms[ownable := ownable, governance := governance]
initializes: eip712_domain_separator

exports: (
    governance.owner,
    governance.pending_owner,
    governance.transfer_ownership,
    governance.accept_ownership,
    governance.guardian,
    governance.set_guardian,
    platforms.register_platform,
    platforms.allow_authority,
    platforms.revoke_authority,
    platforms.set_quoting_enclave,
    platforms.root,
    platforms.certificates,
    platforms.quoting_enclave,
    platforms.authority_expiry,
    platforms.platform,
    platforms.challenge,
    platforms.check_quote,
    eip712_domain_separator.eip712Domain,
)

# no registration outlives the collateral behind it by much
MAX_VALIDITY: public(constant(uint64)) = 31 * 24 * 60 * 60

# of an ECDSA committee 32; a BLS committee's are 224 bytes however many sign
MAX_SIGNATURES_LENGTH: constant(uint256) = 32 * 65
# revoking a platform goes through all of them
MAX_MEASUREMENTS: constant(uint256) = 1023
ENCLAVE_TAG: constant(bytes32) = keccak256("rapha.enclave.v1")

# Where the fields of a key's word begin: measurement in the low 10 bits, node (64 bits), era (24), platform (104),
# revoked (1), and expiry in the high 48, where comparing it takes no mask.
_NODE_ID: constant(uint256) = 10
_ERA: constant(uint256) = 74
_PLATFORM: constant(uint256) = 98
_REVOKED: constant(uint256) = 1 << 202
_EXPIRY: constant(uint256) = 208
_MEASUREMENT_MASK: constant(uint256) = 2**10 - 1
_NODE_MASK: constant(uint256) = 2**64 - 1
_ERA_MASK: constant(uint256) = (2**24 - 1) << _ERA
_PLATFORM_MASK: constant(uint256) = 2**104 - 1

struct Enclave:
    node_id: uint64
    expiry: uint64
    measurement: bytes32
    revoked: bool


# the contract that says whether the committee has signed
committee: public(ICommittee)
# counts the committees; the present one's number
epoch: public(uint64)
# enclave key -> its word; the platform in it is zero for a key that only the committee vouches for
_enclaves: HashMap[address, uint256]
# An era ends when a platform is revoked; the present one, from 1, where a key's word has it. A key of this era was
# registered or renewed after the last platform was revoked, so that its own cannot be among them.
_era: uint256
# number of a measurement -> the present era while it is allowed, else zero
_standing: uint256[MAX_MEASUREMENTS + 1]
# measurement -> its number, from 1
_number_of: HashMap[bytes32, uint256]
# number -> measurement
_measurement_of: HashMap[uint256, bytes32]
# how many measurements were ever allowed
_measurement_count: uint256


@deploy
def __init__(
    owner: address,
    guardian: address,
    committee: ICommittee,
    measurements: DynArray[bytes32, 16],
    trust: platforms.Trust,
):
    """
    @param owner The timelock.
    @param guardian May revoke keys and measurements at once.
    @param committee An `EcdsaCommittee`, a `BlsCommittee`, or whatever else answers as they do.
    @param measurements The enclave measurements that are allowed from the start.
    @param trust The reader of certificates, the root and the CAs of platforms, and the quoting enclaves.
    """
    ownable.__init__()
    governance.__init__(owner, guardian)
    platforms.__init__(trust)
    eip712_domain_separator.__init__("RaphaEnclaveRegistry", "1")
    self._era = 1 << _ERA
    self._set_committee(committee)
    for measurement: bytes32 in measurements:
        self._allow_measurement(measurement)


@external
def register(
    registration: typed_data.EnclaveRegistration, signatures: Bytes[MAX_SIGNATURES_LENGTH]
):
    """
    @notice Register or renew an enclave key. Anyone may bring what the committee signed.
    @param registration What the committee vouches for.
    @param signatures Of members over its EIP-712 digest, as the committee takes them.
    """
    assert registration.epoch == self.epoch, "enclaves: signed for another committee"
    assert registration.enclave_key != empty(address), "enclaves: key is zero"
    assert registration.node_id != 0, "enclaves: node is zero"
    self._check_expiry(registration.expiry)
    number: uint256 = self._number_of[registration.measurement]
    assert self._is_allowed(number), "enclaves: measurement is not allowed"
    expiry: uint256 = convert(registration.expiry, uint256)
    known: uint256 = self._known(registration.enclave_key, convert(registration.node_id, uint256), expiry)
    self._check_signatures(self._registration_digest(registration), signatures)
    # a key that came by quote stays its platform's
    self._enclaves[registration.enclave_key] = (
        expiry << _EXPIRY
        | known & (_PLATFORM_MASK << _PLATFORM)
        | self._era
        | convert(registration.node_id, uint256) << _NODE_ID
        | number
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
def judge(verdict: platforms.PlatformVerdict, signatures: Bytes[MAX_SIGNATURES_LENGTH]):
    """
    @notice Keep the committee's verdict on a registered platform: its TCB is good enough, and whose node it is. Anyone
            may bring what the committee signed.
    @param signatures Of members over its EIP-712 digest, as the committee takes them.
    """
    assert verdict.epoch == self.epoch, "enclaves: signed for another committee"
    assert verdict.node_id != 0, "enclaves: node is zero"
    self._check_expiry(verdict.expiry)
    self._check_signatures(self._verdict_digest(verdict), signatures)
    platforms._judge(
        verdict.platform,
        convert(verdict.node_id, uint256),
        convert(verdict.module_svn, uint256),
        convert(verdict.expiry, uint256),
    )
    log IPlatforms.PlatformJudged(
        platform=verdict.platform,
        node_id=verdict.node_id,
        module_svn=verdict.module_svn,
        expiry=verdict.expiry,
    )


@external
def register_quote(quote: dcap_quote.Quote, enclave_key: address, encryption_key_digest: bytes32):
    """
    @notice Register or renew an enclave key by a quote, for as long as the committee's verdict on its platform lasts and
            for the node that it names. Anyone may bring it.
    @dev The quote must be made for the platform's `challenge`, which it uses up: the next one needs another.
    @param quote Its parts without lengths and certificates.
    @param enclave_key The key that will sign receipts.
    @param encryption_key_digest Keccak-256 of the enclave's X25519 key.
    """
    assert enclave_key != empty(address), "enclaves: key is zero"
    platform: bytes32 = keccak256(abi_encode(quote.pck_key))
    prefix: uint256 = platforms._prefix(platform)
    node_id: uint256 = 0
    module_svn: uint256 = 0
    expiry: uint256 = 0
    node_id, module_svn, expiry = platforms._verdict(prefix)
    assert expiry > block.timestamp, "enclaves: no verdict on the platform"
    known: uint256 = self._known(enclave_key, node_id, expiry)
    nonce: bytes32 = platforms._challenge(platform, prefix)
    report: dcap_quote.Report = platforms._check_quote(quote)
    assert report.module_svn == module_svn, "enclaves: verdict on another TDX module"
    number: uint256 = self._number_of[report.measurement]
    era: uint256 = self._standing[number]
    assert era != 0, "enclaves: measurement is not allowed"
    assert report.binding == keccak256(
        abi_encode(ENCLAVE_TAG, chain.id, self, enclave_key, encryption_key_digest, nonce)
    ), "enclaves: quote binds something else"
    self._enclaves[enclave_key] = (
        expiry << _EXPIRY
        | prefix << _PLATFORM
        | era
        | node_id << _NODE_ID
        | number
    )
    platforms._use_challenge(platform, prefix)
    log IPlatforms.EnclaveQuoted(
        enclave_key=enclave_key,
        platform=platform,
        nonce=nonce,
        configuration=report.configuration,
    )
    log IEnclaveRegistry.EnclaveRegistered(
        enclave_key=enclave_key,
        node_id=convert(node_id, uint64),
        measurement=report.measurement,
        attestation_digest=keccak256(quote.signed),
        encryption_key_digest=encryption_key_digest,
        expiry=convert(expiry, uint64),
    )


@external
def revoke(enclave_key: address):
    """
    @notice Revoke an enclave key at once and for good, known or not. Guardian or owner.
    """
    governance._check_guardian()
    known: uint256 = self._enclaves[enclave_key]
    # without its expiry it is refused like one that has expired
    self._enclaves[enclave_key] = known & (2**_EXPIRY - 1) | _REVOKED
    log IEnclaveRegistry.EnclaveRevoked(enclave_key=enclave_key)


@external
def revoke_measurement(measurement: bytes32):
    """
    @notice Revoke a measurement, and so every key that runs it, at once. Guardian or owner.
    """
    governance._check_guardian()
    number: uint256 = self._number_of[measurement]
    assert self._is_allowed(number), "enclaves: measurement is not allowed"
    self._standing[number] = 0
    log IEnclaveRegistry.MeasurementRevoked(measurement=measurement)


@external
def revoke_platform(platform: bytes32):
    """
    @notice Revoke a platform, and so every key that came from it by quote, at once and for good, known or not. Guardian
            or owner.
    @param platform Keccak-256 of its PCK key (x, y).
    """
    governance._check_guardian()
    self._revoke_platform(platform)


@external
def revoke_certificate(authority: bytes32, serial: uint256):
    """
    @notice Revoke a PCK certificate, and the platform that it was brought for, at once and for good. Guardian or owner.
    @param authority Keccak-256 of the key (x, y) of the CA that signed it.
    @param serial Its serial number, as Intel's revocation list has it.
    """
    governance._check_guardian()
    platform: bytes32 = platforms._revoke_certificate(authority, serial)
    if platform != empty(bytes32):
        self._revoke_platform(platform)


@external
def allow_measurement(measurement: bytes32):
    """
    @notice Allow an enclave measurement. Owner only.
    """
    ownable._check_owner()
    self._allow_measurement(measurement)


@external
def set_committee(committee: ICommittee):
    """
    @notice Replace the committee. Owner only. What the old one signed can no longer be registered, also where the
            same contract is set again; keys that it registered stay until they expire or are revoked.
    @param committee As for the constructor.
    """
    ownable._check_owner()
    self._set_committee(committee)


@external
@view
@reentrant
def is_valid(enclave_key: address, node_id: uint256) -> bool:
    """
    @notice Whether receipts by this key count for this node now: registered for it, unexpired, unrevoked,
            with an allowed measurement.
    """
    known: uint256 = self._enclaves[enclave_key]
    # an unknown key and a revoked one have no expiry
    if known >> _EXPIRY <= block.timestamp:
        return False
    if (known >> _NODE_ID) & _NODE_MASK != node_id:
        return False
    if self._standing[known & _MEASUREMENT_MASK] != known & _ERA_MASK:
        # written out here, where each gas is paid for by every receipt
        if self._standing[known & _MEASUREMENT_MASK] == 0:
            return False
        prefix: uint256 = (known >> _PLATFORM) & _PLATFORM_MASK
        if prefix != 0:
            return platforms._verdicts[prefix] & platforms._REVOKED == 0
    return True


@external
@view
def enclave(enclave_key: address) -> Enclave:
    """
    @notice What is registered for a key; all zero when nothing is.
    """
    known: uint256 = self._enclaves[enclave_key]
    return Enclave(
        node_id=convert((known >> _NODE_ID) & _NODE_MASK, uint64),
        expiry=convert(known >> _EXPIRY, uint64),
        measurement=self._measurement_of[known & _MEASUREMENT_MASK],
        revoked=known & _REVOKED != 0,
    )


@external
@view
def is_measurement_allowed(measurement: bytes32) -> bool:
    """
    @notice Whether enclaves with this measurement may be registered and their receipts count.
    """
    return self._is_allowed(self._number_of[measurement])


@external
@view
def threshold() -> uint256:
    """
    @notice How many members of the present committee must sign.
    """
    return staticcall self.committee.threshold()


@external
@view
def is_signed(digest: bytes32, signatures: Bytes[MAX_SIGNATURES_LENGTH]) -> bool:
    """
    @notice Whether the present committee has signed a digest; where it has not, the call reverts and says why.
    @param digest An EIP-712 digest, in the domain of whoever asks.
    @param signatures Of members, as the committee takes them.
    """
    self._check_signatures(digest, signatures)
    return True


@external
@view
def registration_digest(registration: typed_data.EnclaveRegistration) -> bytes32:
    """
    @notice The EIP-712 digest that committee members sign.
    """
    return self._registration_digest(registration)


@external
@view
def verdict_digest(verdict: platforms.PlatformVerdict) -> bytes32:
    """
    @notice The EIP-712 digest that committee members sign over a platform.
    """
    return self._verdict_digest(verdict)


@internal
def _set_committee(committee: ICommittee):
    # nobody can sign for what is no committee: registrations would stop until the owner sets another
    assert committee.address.is_contract, "enclaves: not a committee"
    assert staticcall committee.threshold() != 0, "enclaves: not a committee"
    epoch: uint64 = self.epoch + 1
    self.committee = committee
    self.epoch = epoch
    log IEnclaveRegistry.CommitteeChanged(epoch=epoch, committee=committee.address)


@internal
@view
def _check_signatures(digest: bytes32, signatures: Bytes[MAX_SIGNATURES_LENGTH]):
    # it reverts, and says why, where it has not
    assert staticcall self.committee.is_signed(digest, signatures), "enclaves: not signed by the committee"


@internal
@view
def _registration_digest(registration: typed_data.EnclaveRegistration) -> bytes32:
    return typed_data._digest(
        eip712_domain_separator._domain_separator_v4(), typed_data._registration_hash(registration)
    )


@internal
@view
def _verdict_digest(verdict: platforms.PlatformVerdict) -> bytes32:
    return typed_data._digest(
        eip712_domain_separator._domain_separator_v4(), platforms._verdict_hash(verdict)
    )


@internal
@view
def _known(enclave_key: address, node_id: uint256, expiry: uint256) -> uint256:
    """
    @dev The word of a key that may now be registered for this node until `expiry`; zero for a new one.
    """
    known: uint256 = self._enclaves[enclave_key]
    if known != 0:
        assert known & _REVOKED == 0, "enclaves: key is revoked"
        assert (known >> _NODE_ID) & _NODE_MASK == node_id, "enclaves: key belongs to another node"
        # so that an old registration cannot shorten a newer one
        assert expiry > known >> _EXPIRY, "enclaves: registration is not newer"
        # neither the committee nor another platform brings such a key back
        assert not self._is_of_revoked_platform(known), "dcap: platform is revoked"
    return known


@internal
@view
def _is_of_revoked_platform(known: uint256) -> bool:
    """
    @dev Whether a key came by a quote from a platform that is revoked by now.
    """
    prefix: uint256 = (known >> _PLATFORM) & _PLATFORM_MASK
    return prefix != 0 and platforms._is_revoked(prefix)


@internal
@view
def _check_expiry(expiry: uint64):
    assert convert(expiry, uint256) > block.timestamp, "enclaves: registration has expired"
    assert convert(expiry, uint256) <= block.timestamp + convert(MAX_VALIDITY, uint256), "enclaves: expiry too far ahead"


@internal
@view
def _is_allowed(number: uint256) -> bool:
    # number 0 is no measurement's
    return self._standing[number] != 0


@internal
def _revoke_platform(platform: bytes32):
    platforms._revoke(platform)
    # beyond the last era nothing is allowed any more
    era: uint256 = (self._era + (1 << _ERA)) & _ERA_MASK
    self._era = era
    for number: uint256 in range(1, self._measurement_count + 1, bound=MAX_MEASUREMENTS):
        if self._standing[number] != 0:
            self._standing[number] = era


@internal
def _allow_measurement(measurement: bytes32):
    assert measurement != empty(bytes32), "enclaves: measurement is zero"
    number: uint256 = self._number_of[measurement]
    if number == 0:
        number = self._measurement_count + 1
        assert number <= MAX_MEASUREMENTS, "enclaves: too many measurements"
        self._measurement_count = number
        self._number_of[measurement] = number
        self._measurement_of[number] = measurement
    self._standing[number] = self._era
    log IEnclaveRegistry.MeasurementAllowed(measurement=measurement)
