# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Which platforms may make quotes: certified by Intel, judged by the committee, not revoked
@license AGPL-3.0-only
@notice A platform is known by the Keccak-256 of its PCK key (x, y). Anyone may bring its certificate. The root of
        all certificates is fixed for good. Under Intel's only Intel's two CAs may certify, and on chains with real
        money there is no other root, and no other reader of certificates than the one that stands here.
@dev Storage knows a platform by the first 104 bits of that digest, so that an enclave key's word has room for it.
     Keys are certified by Intel, so nobody chooses them, and to hit another's takes 2**104 tries.
"""
from contracts.interfaces import IPckCertificates
from contracts.interfaces import IPlatforms
from contracts.modules import dcap_quote
from contracts.modules import governance
from contracts.modules import p256
from contracts.modules import x509
from snekmate.auth import ownable

uses: ownable
uses: governance

# of Intel SGX Root CA
INTEL_ROOT_X: constant(bytes32) = 0x0BA9C4C0C0C86193A3FE23D6B02CDA10A8BBD4E88E48B4458561A36E705525F5
INTEL_ROOT_Y: constant(bytes32) = 0x67918E2EDC88E40D860BD0CC4EE26AACC988E505A953558C453F6B0904AE7394
# Keccak-256 of the keys (x, y) of Intel SGX PCK Platform CA and Intel SGX PCK Processor CA
INTEL_PLATFORM_CA: constant(bytes32) = 0x7F4CB4B66EB7E15751979D54CEDCA7F75F241EBD94163729E37AB62B8C331059
INTEL_PROCESSOR_CA: constant(bytes32) = 0x425C36C4D90CB179725C5470C87F3056E278B5E68CE5394017EAF98971B87E67
# Keccak-256 of the code of `PckCertificates`, on whose word everything here rests
READER_CODE_HASH: constant(bytes32) = 0x6535AE0EF29BD8C1C2C52B69F543272454B3C6E9D13133265A0C99F99E4A6871

VERDICT_TYPE_HASH: constant(bytes32) = keccak256(
    "PlatformVerdict(bytes32 platform,uint64 nodeId,uint128 moduleSvn,uint64 expiry,uint64 epoch)"
)

_CERTIFICATE_REVOKED: constant(bytes32) = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF
_PREFIX_SHIFT: constant(uint256) = 152
_REVOKED: constant(uint256) = 1 << 255
_SVN: constant(uint256) = 112
_NODE_ID: constant(uint256) = 48
_EXPIRY_MASK: constant(uint256) = 2**48 - 1
_NODE_MASK: constant(uint256) = 2**64 - 1
_SVN_MASK: constant(uint256) = 2**128 - 1
_FMSPC: constant(uint256) = 48
_PCE_ID: constant(uint256) = 96
_CHALLENGE: constant(uint256) = 112

_CERTIFICATES: immutable(IPckCertificates)
_ROOT: immutable(p256.Key)
# whether the root is not Intel's, so that every quote must say that it is simulated
_SIMULATED: immutable(bool)

# What a deployment trusts from its start.
struct Trust:
    certificates: address
    root: p256.Key
    # certificates of the CAs that issue PCK certificates, in DER
    authorities: DynArray[Bytes[x509.MAX_LENGTH], 2]
    sgx: dcap_quote.QuotingEnclave
    tdx: dcap_quote.QuotingEnclave


# The committee's word on a platform: up to date, and this node's. `module_svn` is TEE_TCB_SVN read as one number,
# of the TDX module it was judged with; zero for SGX. `settlement/eip712.py` is its Python twin.
struct PlatformVerdict:
    platform: bytes32
    node_id: uint64
    module_svn: uint128
    expiry: uint64
    epoch: uint64


struct Platform:
    revoked: bool
    # when its certificate ends, zero when it is not registered
    not_after: uint256
    fmspc: uint256
    pce_id: uint256
    # what the committee says: whose it is, with which TDX module (zero for SGX), until when
    node_id: uint256
    module_svn: uint256
    expiry: uint256


# Keccak-256 of a CA's key -> when its certificate ends
_authorities: HashMap[bytes32, uint256]
# platform -> revoked (bit 255), TDX module (128), node (64), until when (48): all that a quote asks about
_verdicts: HashMap[uint256, uint256]
# platform -> challenge (128 bits from bit 112), PCE id (16), FMSPC (48), end of its certificate (48)
_certified: HashMap[uint256, uint256]
# CA and serial -> the platform certified, or all ones when revoked
_platform_of: HashMap[bytes32, bytes32]
# TEE type -> the quoting enclave that may speak for it
_quoting_enclaves: HashMap[uint256, dcap_quote.PackedQuotingEnclave]


@deploy
def __init__(trust: Trust):
    _CERTIFICATES = IPckCertificates(trust.certificates)
    _ROOT = trust.root
    _SIMULATED = trust.root.x != INTEL_ROOT_X or trust.root.y != INTEL_ROOT_Y
    if chain.id == 1 or chain.id == 137 or chain.id == 80002:
        assert not _SIMULATED, "dcap: root is not from Intel"
        assert trust.certificates.codehash == READER_CODE_HASH, "dcap: another reader of certificates"
    for certificate: Bytes[x509.MAX_LENGTH] in trust.authorities:
        self._allow_authority(certificate, _CERTIFICATES, _ROOT)
    self._set_quoting_enclave(dcap_quote.SGX, trust.sgx)
    self._set_quoting_enclave(dcap_quote.TDX, trust.tdx)


@external
def register_platform(certificate: Bytes[x509.MAX_LENGTH], issuer: p256.Key) -> bytes32:
    """
    @notice Register a platform by its PCK certificate. Anyone may bring it; a later one for the same key renews it.
    @param certificate In DER.
    @param issuer The key of the CA that signed it.
    @return The platform: Keccak-256 of its PCK key.
    """
    authority: bytes32 = p256._digest_of_key(issuer)
    assert self._authorities[authority] >= block.timestamp, "dcap: CA not allowed"
    read: IPckCertificates.Pck = staticcall _CERTIFICATES.read_pck(certificate, issuer.x, issuer.y)
    assert read.not_before <= block.timestamp, "dcap: certificate is not yet valid"
    assert read.not_after >= block.timestamp, "dcap: certificate has expired"
    platform: bytes32 = p256._digest_of_key(p256.Key(x=read.x, y=read.y))
    prefix: uint256 = self._prefix(platform)
    assert self._verdicts[prefix] & _REVOKED == 0, "dcap: platform is revoked"
    named: bytes32 = self._certificate(authority, read.serial)
    assert self._platform_of[named] != _CERTIFICATE_REVOKED, "dcap: certificate is revoked"
    # and so none takes the place of one that is valid for longer
    certified: uint256 = self._certified[prefix]
    assert read.not_after > certified & _EXPIRY_MASK, "dcap: certificate is not newer"
    self._platform_of[named] = platform
    self._certified[prefix] = (
        (certified >> _CHALLENGE) << _CHALLENGE
        | read.pce_id << _PCE_ID
        | read.fmspc << _FMSPC
        | read.not_after
    )
    log IPlatforms.PlatformRegistered(
        platform=platform,
        issuer=authority,
        serial=read.serial,
        fmspc=read.fmspc,
        pce_id=read.pce_id,
        not_after=read.not_after,
    )
    return platform


@external
def allow_authority(certificate: Bytes[x509.MAX_LENGTH]):
    """
    @notice Let a CA certify platforms, again after its revocation or with a later certificate. Owner only. The root must
            have signed that it is a CA for PCK certificates; under Intel's root it must be one of Intel's two.
    @param certificate In DER.
    """
    ownable._check_owner()
    self._allow_authority(certificate, _CERTIFICATES, _ROOT)


@external
def revoke_authority(authority: bytes32):
    """
    @notice Let a CA certify no more platforms. Guardian or owner. Those that it has certified are revoked one by one.
    @param authority Keccak-256 of its key (x, y).
    """
    governance._check_guardian()
    self._authorities[authority] = 0
    log IPlatforms.AuthorityRevoked(authority=authority)


@external
def set_quoting_enclave(tee: uint256, enclave: dcap_quote.QuotingEnclave):
    """
    @notice Say which quoting enclave may speak for a kind of TEE. Owner only.
    @param tee 0 for SGX, 129 for TDX.
    """
    ownable._check_owner()
    assert tee == dcap_quote.SGX or tee == dcap_quote.TDX, "dcap: kind of quote not supported"
    self._set_quoting_enclave(tee, enclave)


@external
@view
@reentrant
def root() -> p256.Key:
    """
    @notice The key under which all certificates stand: Intel's, or one whose platforms are all simulated.
    """
    return _ROOT


@external
@view
@reentrant
def certificates() -> address:
    """
    @notice The `PckCertificates` that reads and checks certificates for this registry.
    """
    return _CERTIFICATES.address


@external
@view
@reentrant
def quoting_enclave(tee: uint256) -> dcap_quote.PackedQuotingEnclave:
    """
    @notice Which quoting enclave may speak for a kind of TEE, as it is compared; all zero for none.
    @param tee 0 for SGX, 129 for TDX.
    """
    return self._quoting_enclaves[tee]


@external
@view
@reentrant
def authority_expiry(authority: bytes32) -> uint256:
    """
    @notice When the certificate of a CA ends, zero when it may not certify platforms.
    @param authority Keccak-256 of its key (x, y).
    """
    return self._authorities[authority]


@external
@view
@reentrant
def platform(platform: bytes32) -> Platform:
    """
    @notice What is known of a platform; all zero when nothing is.
    @param platform Keccak-256 of its PCK key (x, y).
    """
    prefix: uint256 = self._prefix(platform)
    verdict: uint256 = self._verdicts[prefix]
    certified: uint256 = self._certified[prefix]
    return Platform(
        revoked=verdict & _REVOKED != 0,
        not_after=certified & _EXPIRY_MASK,
        fmspc=(certified >> _FMSPC) & (2**48 - 1),
        pce_id=(certified >> _PCE_ID) & (2**16 - 1),
        node_id=(verdict >> _NODE_ID) & _NODE_MASK,
        module_svn=(verdict >> _SVN) & _SVN_MASK,
        expiry=verdict & _EXPIRY_MASK,
    )


@external
@view
@reentrant
def challenge(platform: bytes32) -> bytes32:
    """
    @notice The nonce that the next quote from a platform must be made for. Each accepted quote and each verdict brings
            another, which nobody knows before the block ahead of it, so no quote is older than that.
    @param platform Keccak-256 of its PCK key (x, y).
    """
    return self._challenge(platform, self._prefix(platform))


@external
@view
@reentrant
def check_quote(quote: dcap_quote.Quote) -> dcap_quote.Report:
    """
    @notice What a quote reports, by its PCK key's word and that of an allowed quoting enclave; reverts when it is not
            genuine. Whether the platform with that key counts, `platform` tells.
    """
    return self._check_quote(quote)


@internal
@pure
def _verdict_hash(verdict: PlatformVerdict) -> bytes32:
    return keccak256(abi_encode(VERDICT_TYPE_HASH, verdict))


@internal
def _judge(platform: bytes32, node_id: uint256, module_svn: uint256, expiry: uint256):
    """
    @dev Keep the committee's verdict. Who calls has checked its signatures and that `expiry` is near.
    """
    prefix: uint256 = self._prefix(platform)
    known: uint256 = self._verdicts[prefix]
    assert known & _REVOKED == 0, "dcap: platform is revoked"
    assert expiry <= self._certified[prefix] & _EXPIRY_MASK, "dcap: platform is not certified for so long"
    # so that an old verdict cannot take a newer one's place
    assert expiry > known & _EXPIRY_MASK, "dcap: verdict is not newer"
    self._verdicts[prefix] = module_svn << _SVN | node_id << _NODE_ID | expiry
    self._use_challenge(platform, prefix)


@internal
def _use_challenge(platform: bytes32, prefix: uint256):
    """
    @dev Put another challenge in place of the present one.
    """
    certified: uint256 = self._certified[prefix]
    fresh: bytes32 = keccak256(abi_encode(blockhash(block.number - 1), platform, certified))
    self._certified[prefix] = (
        (convert(fresh, uint256) >> 128) << _CHALLENGE | certified & (2**_CHALLENGE - 1)
    )


@internal
def _revoke_certificate(authority: bytes32, serial: uint256) -> bytes32:
    """
    @dev Returns the platform that the certificate was for, zero when it has none.
    """
    named: bytes32 = self._certificate(authority, serial)
    platform: bytes32 = self._platform_of[named]
    self._platform_of[named] = _CERTIFICATE_REVOKED
    log IPlatforms.CertificateRevoked(authority=authority, serial=serial)
    return platform if platform != _CERTIFICATE_REVOKED else empty(bytes32)


@internal
def _revoke(platform: bytes32):
    self._verdicts[self._prefix(platform)] |= _REVOKED
    log IPlatforms.PlatformRevoked(platform=platform)


@internal
@view
def _verdict(prefix: uint256) -> (uint256, uint256, uint256):
    """
    @dev Node, TDX module and end of the committee's verdict on a platform that is not revoked.
    """
    word: uint256 = self._verdicts[prefix]
    assert word & _REVOKED == 0, "dcap: platform is revoked"
    return (word >> _NODE_ID) & _NODE_MASK, (word >> _SVN) & _SVN_MASK, word & _EXPIRY_MASK


@internal
@view
def _challenge(platform: bytes32, prefix: uint256) -> bytes32:
    return keccak256(abi_encode(platform, self._certified[prefix] >> _CHALLENGE))


@internal
@view
def _is_revoked(prefix: uint256) -> bool:
    return self._verdicts[prefix] & _REVOKED != 0


@internal
@view
def _check_quote(quote: dcap_quote.Quote) -> dcap_quote.Report:
    """
    @dev What a genuine quote reports. Whether its platform counts is for `_verdict` to say.
    """
    tee: uint256 = dcap_quote._tee(quote.signed)
    report: dcap_quote.Report = dcap_quote._report(quote.signed, tee, _SIMULATED)
    dcap_quote._check_quoting_enclave(quote.report, self._quoting_enclaves[tee])
    dcap_quote._check_signatures(quote)
    return report


@internal
@pure
def _prefix(platform: bytes32) -> uint256:
    return convert(platform, uint256) >> _PREFIX_SHIFT


@internal
@pure
def _certificate(authority: bytes32, serial: uint256) -> bytes32:
    return keccak256(abi_encode(authority, serial))


@internal
def _allow_authority(
    certificate: Bytes[x509.MAX_LENGTH], certificates: IPckCertificates, root: p256.Key
):
    # the two come as arguments, since a constructor cannot read them from code yet
    read: IPckCertificates.PckCa = staticcall certificates.read_ca(certificate, root.x, root.y)
    assert read.not_before <= block.timestamp, "dcap: certificate is not yet valid"
    assert read.not_after >= block.timestamp, "dcap: certificate has expired"
    authority: bytes32 = p256._digest_of_key(p256.Key(x=read.x, y=read.y))
    if root.x == INTEL_ROOT_X and root.y == INTEL_ROOT_Y:
        assert authority == INTEL_PLATFORM_CA or authority == INTEL_PROCESSOR_CA, "dcap: CA is not from Intel"
    self._authorities[authority] = read.not_after
    log IPlatforms.AuthorityAllowed(authority=authority, not_after=read.not_after)


@internal
def _set_quoting_enclave(tee: uint256, enclave: dcap_quote.QuotingEnclave):
    self._quoting_enclaves[tee] = dcap_quote._pack(enclave)
    log IPlatforms.QuotingEnclaveChanged(
        tee=tee,
        signer=enclave.signer,
        product=enclave.product,
        min_svn=enclave.min_svn,
        misc_select=enclave.misc_select,
        misc_select_mask=enclave.misc_select_mask,
        attributes=enclave.attributes,
        attributes_mask=enclave.attributes_mask,
    )
