# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Quotes of SGX (version 3) and TDX (version 4), as DCAP makes them
@license AGPL-3.0-only
@notice What a quote must be for its report to count: signed by the attestation key, which the quoting enclave
        vouches for, whose report in turn the platform's PCK key has signed; made by an allowed quoting enclave;
        and not debuggable. Whether the platform is genuine and up to date is not for a quote to say.
@dev Sources: Intel SGX ECDSA QuoteLibReference, Intel TDX DCAP Quoting Library ("Quote format"), Intel TDX
     Module 1.5 ABI. Integers in quotes are little-endian. Lengths and certificates of a quote are left out
     here, so that there is no byte in the argument that is not checked.
"""
from contracts.modules import p256

# 48 bytes of header, then a report of 384 or of 584
SGX_LENGTH: constant(uint256) = 432
TDX_LENGTH: constant(uint256) = 632
# TEE types, as the header has them
SGX: constant(uint256) = 0
TDX: constant(uint256) = 129

# version, attestation key type 2 (ECDSA on P-256), TEE type
_SGX_HEAD: constant(bytes8) = 0x0300020000000000
_TDX_HEAD: constant(bytes8) = 0x0400020081000000
_INTEL: constant(bytes16) = 0x939A7233F79C4CA9940A0DB3957F0607
# what a development platform writes where Intel's write a number of their own: SIMULATED-DEV-ONLY
_SIMULATED: constant(bytes20) = 0x53494D554C415445442D4445562D4F4E4C590000

_SGX_INIT: constant(uint256) = 1
_SGX_DEBUG: constant(uint256) = 2
# Of a trust domain's attributes just SEPT_VE_DISABLE: neither debuggable nor with performance monitoring or key
# locker. The module's measurement signer and attributes are zero for Intel's own.
_TD_ATTRIBUTES: constant(bytes8) = 0x0000001000000000

struct Quote:
    # header and report
    signed: Bytes[TDX_LENGTH]
    # of the attestation key over `signed`
    signature: p256.Signature
    attestation_key: p256.Key
    # of the quoting enclave
    report: bytes32[12]
    # of the PCK key over `report`
    report_signature: p256.Signature
    # what the quoting enclave put beside the attestation key into its report
    authentication: bytes32
    pck_key: p256.Key


# Bytes as reports have them. Masks say which bits count.
struct QuotingEnclave:
    signer: bytes32
    product: uint16
    min_svn: uint16
    misc_select: bytes4
    misc_select_mask: bytes4
    attributes: bytes16
    attributes_mask: bytes16


# The same in three words: `bits` and `mask` hold misc_select (4 bytes), attributes (16), product (2), min_svn (2).
struct PackedQuotingEnclave:
    signer: bytes32
    bits: uint256
    mask: uint256


struct Report:
    # SGX or TDX
    tee: uint256
    # MRENCLAVE, or for TDX Keccak-256 of MRTD and the four RTMRs
    measurement: bytes32
    # TEE_TCB_SVN: of the TDX module that made it, zero for SGX
    module_svn: uint256
    # the two halves of the report data
    binding: bytes32
    configuration: bytes32


@internal
@pure
def _tee(signed: Bytes[TDX_LENGTH]) -> uint256:
    """
    @dev Which kind of quote this is, by its length and its first eight bytes.
    """
    if len(signed) == SGX_LENGTH:
        assert convert(extract32(signed, 0), uint256) >> 192 == convert(_SGX_HEAD, uint256), "dcap: kind of quote not supported"
        return SGX
    assert len(signed) == TDX_LENGTH, "dcap: quote has another length"
    assert convert(extract32(signed, 0), uint256) >> 192 == convert(_TDX_HEAD, uint256), "dcap: kind of quote not supported"
    return TDX


@internal
@pure
def _report(signed: Bytes[TDX_LENGTH], tee: uint256, simulated: bool) -> Report:
    """
    @dev What the report says, of an enclave or trust domain that nobody can look into.
    """
    vendor: uint256 = (convert(extract32(signed, 0), uint256) >> 32) & (2**128 - 1)
    assert vendor == convert(_INTEL, uint256), "dcap: quoting enclave is not from Intel"
    mark: uint256 = convert(extract32(signed, 28), uint256) >> 96
    assert (mark == convert(_SIMULATED, uint256)) == simulated, "dcap: simulated or not unlike the root"
    if tee == SGX:
        flags: uint256 = convert(extract32(signed, 96), uint256) >> 248
        assert flags & _SGX_DEBUG == 0, "dcap: enclave is in debug mode"
        assert flags & _SGX_INIT != 0, "dcap: enclave is not initialised"
        return Report(
            tee=SGX,
            measurement=extract32(signed, 112),
            module_svn=0,
            binding=extract32(signed, 368),
            configuration=extract32(signed, 400),
        )
    # 48 bytes of signer, 8 of attributes of the module, then 8 of the trust domain
    assert extract32(signed, 112) == empty(bytes32), "dcap: TDX module is not from Intel"
    assert convert(extract32(signed, 136), uint256) == 0, "dcap: TDX module is not from Intel"
    module_svn: uint256 = convert(extract32(signed, 48), uint256) >> 128
    # zero is what a verdict on SGX says
    assert module_svn != 0, "dcap: TDX module is not from Intel"
    attributes: uint256 = convert(extract32(signed, 168), uint256) >> 192
    assert attributes >> 56 == 0, "dcap: enclave is in debug mode"
    assert attributes == convert(_TD_ATTRIBUTES, uint256), "dcap: trust domain is not sealed off"
    return Report(
        tee=TDX,
        measurement=keccak256(concat(slice(signed, 184, 48), slice(signed, 376, 192))),
        module_svn=module_svn,
        binding=extract32(signed, 568),
        configuration=extract32(signed, 600),
    )


@internal
@pure
def _check_quoting_enclave(report: bytes32[12], allowed: PackedQuotingEnclave):
    """
    @dev That this is the report of an allowed quoting enclave.
    """
    assert allowed.signer != empty(bytes32), "dcap: quoting enclave not allowed"
    assert report[4] == allowed.signer, "dcap: quoting enclave not allowed"
    # product and security version are two bytes each, little-endian
    word: uint256 = convert(report[8], uint256)
    product: uint256 = word >> 248 | ((word >> 240) & 255) << 8
    svn: uint256 = (word >> 232) & 255 | ((word >> 224) & 255) << 8
    bits: uint256 = (
        ((convert(report[0], uint256) >> 96) & (2**32 - 1)) << 160
        | (convert(report[1], uint256) & (2**128 - 1)) << 32
        | product << 16
    )
    assert bits & allowed.mask == allowed.bits & ~65535, "dcap: quoting enclave not allowed"
    assert svn >= allowed.bits & 65535, "dcap: quoting enclave is outdated"


@internal
@view
def _check_signatures(quote: Quote):
    """
    @dev From the PCK key down to the report: quoting enclave, attestation key, quote.
    """
    assert p256._is_valid(
        sha256(abi_encode(quote.report)), quote.report_signature, quote.pck_key
    ), "dcap: invalid signature of the PCK key"
    assert quote.report[10] == sha256(
        abi_encode(quote.attestation_key, quote.authentication)
    ), "dcap: attestation key not vouched for"
    assert quote.report[11] == empty(bytes32), "dcap: attestation key not vouched for"
    assert p256._is_valid(
        sha256(quote.signed), quote.signature, quote.attestation_key
    ), "dcap: invalid signature of the quote"


@internal
@pure
def _pack(enclave: QuotingEnclave) -> PackedQuotingEnclave:
    assert enclave.signer != empty(bytes32), "dcap: signer of quoting enclave is zero"
    mask: uint256 = (
        convert(convert(enclave.misc_select_mask, uint32), uint256) << 160
        | convert(convert(enclave.attributes_mask, uint128), uint256) << 32
        | 65535 << 16
    )
    bits: uint256 = (
        convert(convert(enclave.misc_select, uint32), uint256) << 160
        | convert(convert(enclave.attributes, uint128), uint256) << 32
        | convert(enclave.product, uint256) << 16
    )
    return PackedQuotingEnclave(
        signer=enclave.signer, bits=bits & mask | convert(enclave.min_svn, uint256), mask=mask
    )
