# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title X.509 certificates of the kind that Intel issues: version 3, P-256 keys, ECDSA with SHA-256
@license AGPL-3.0-only
@notice RFC 5280 in strict DER: every length is the shortest, fits its parent, and nothing is left over. Who asked
        for a certificate checks its signature; only then does what it says count.
@dev Certificates are handled with a word of padding behind them, so that a word can be read wherever one of
     their bytes can. Positions count from the start of the certificate.
"""
from contracts.modules import p256

MAX_LENGTH: constant(uint256) = 1536
PADDED_LENGTH: constant(uint256) = MAX_LENGTH + 32

_INTEGER: constant(uint256) = 2
_BIT_STRING: constant(uint256) = 3
_OCTET_STRING: constant(uint256) = 4
_OBJECT_IDENTIFIER: constant(uint256) = 6
_UTC_TIME: constant(uint256) = 23
_GENERALIZED_TIME: constant(uint256) = 24
_SEQUENCE: constant(uint256) = 48
_SET: constant(uint256) = 49
_EXTENSIONS: constant(uint256) = 163

# [0] { INTEGER 2 }
_VERSION_3: constant(bytes5) = 0xA003020102
# SEQUENCE { OID 1.2.840.10045.4.3.2 }
_ECDSA_WITH_SHA256: constant(bytes12) = 0x300A06082A8648CE3D040302
# SEQUENCE { SEQUENCE { OID 1.2.840.10045.2.1, OID 1.2.840.10045.3.1.7 }, BIT STRING of an uncompressed point }
_P256_POINT: constant(bytes27) = 0x3059301306072A8648CE3D020106082A8648CE3D03010703420004
# BOOLEAN true: a BOOLEAN false would be the default, which DER leaves out
_TRUE: constant(bytes3) = 0x0101FF
# OIDs with tag and length: commonName, keyUsage, basicConstraints
_COMMON_NAME: constant(bytes5) = 0x0603550403
_KEY_USAGE: constant(bytes5) = 0x0603551D0F
_BASIC_CONSTRAINTS: constant(bytes5) = 0x0603551D13
# SEQUENCE { BOOLEAN true, INTEGER 0 }: a CA under which there is no further one
_LAST_CA: constant(bytes8) = 0x30060101FF020100
# SEQUENCE {}: no CA
_NO_CA: constant(bytes2) = 0x3000
# BIT STRING of up to eight bits, and two of them
_USAGE: constant(bytes2) = 0x0302
_DIGITAL_SIGNATURE: constant(uint256) = 128
_KEY_CERT_SIGN: constant(uint256) = 4
_PLATFORM_CA: constant(bytes19) = 0x5347582050434B20506C6174666F726D204341  # SGX PCK Platform CA
_PROCESSOR_CA: constant(bytes20) = 0x5347582050434B2050726F636573736F72204341  # SGX PCK Processor CA

# OID 1.2.840.113741.1.13.1 with tag and length, and its arcs 3 and 4
_SGX: constant(bytes11) = 0x06092A864886F84D010D01
_SGX_PCE_ID: constant(bytes12) = 0x060A2A864886F84D010D0103
_SGX_FMSPC: constant(bytes12) = 0x060A2A864886F84D010D0104
_MAX_EXTENSIONS: constant(uint256) = 16

struct Span:
    start: uint256
    end: uint256


struct Certificate:
    # SHA-256 of what is signed
    digest: bytes32
    signature: p256.Signature
    serial: uint256
    # Unix seconds, both included
    not_before: uint256
    not_after: uint256
    subject: Span
    key: p256.Key
    # values of the extensions that are known here, nowhere when there is none
    constraints: Span
    usage: Span
    sgx: Span


# what the extension of a PCK certificate says of its platform
struct Platform:
    # kind of processor, six bytes
    fmspc: uint256
    pce_id: uint256


@internal
@pure
def _read(der: Bytes[PADDED_LENGTH]) -> Certificate:
    size: uint256 = len(der) - 32
    whole: Span = self._element(der, 0, size, _SEQUENCE)
    self._must(whole.end == size)
    signed: Span = self._element(der, whole.start, size, _SEQUENCE)
    certificate: Certificate = empty(Certificate)
    certificate.digest = sha256(slice(der, whole.start, signed.end - whole.start))
    certificate.signature = self._signature(der, signed.end)

    at: uint256 = signed.start
    self._must(self._word(der, at) >> 216 == convert(_VERSION_3, uint256))
    integer: Span = self._element(der, at + 5, signed.end, _INTEGER)
    certificate.serial = self._integer(der, integer)
    at = integer.end
    self._must(self._word(der, at) >> 160 == convert(_ECDSA_WITH_SHA256, uint256))
    issuer: Span = self._element(der, at + 12, signed.end, _SEQUENCE)
    validity: Span = self._element(der, issuer.end, signed.end, _SEQUENCE)
    at = validity.start
    certificate.not_before, at = self._time(self._word(der, at), at)
    # of its limits only the one behind is left to check, and a word can be read up to it
    self._must(at < validity.end)
    certificate.not_after, at = self._time(self._word(der, at), at)
    self._must(at == validity.end)
    certificate.subject = self._element(der, at, signed.end, _SEQUENCE)
    at = certificate.subject.end
    self._must(at + 91 <= signed.end)
    self._must(self._word(der, at) >> 40 == convert(_P256_POINT, uint256))
    certificate.key = p256.Key(x=extract32(der, at + 27), y=extract32(der, at + 59))
    at += 91
    tagged: Span = self._element(der, at, signed.end, _EXTENSIONS)
    extensions: Span = self._element(der, tagged.start, tagged.end, _SEQUENCE)
    self._must(tagged.end == signed.end and extensions.end == signed.end)
    certificate.constraints, certificate.usage, certificate.sgx = self._extensions(der, extensions)
    return certificate


@internal
@pure
def _is_pck_ca(der: Bytes[PADDED_LENGTH], certificate: Certificate) -> bool:
    """
    @dev Whether this is one of the two CAs that issue PCK certificates. The root signs them, itself, and the
         certificate that signs TCB information; the latter two are not such.
    """
    constraints: Span = certificate.constraints
    if constraints.end - constraints.start != 8:
        return False
    if self._word(der, constraints.start) >> 192 != convert(_LAST_CA, uint256):
        return False
    if not self._may(der, certificate.usage, _KEY_CERT_SIGN):
        return False
    end: uint256 = certificate.subject.end
    at: uint256 = certificate.subject.start
    first: Span = self._element(der, at, end, _SET)
    pair: Span = self._element(der, first.start, first.end, _SEQUENCE)
    if self._word(der, pair.start) >> 216 != convert(_COMMON_NAME, uint256):
        return False
    # whichever string type it is, its end is the pair's
    if pair.end < pair.start + 27:
        return False
    name: uint256 = self._word(der, pair.end - 20) >> 96
    return name == convert(_PROCESSOR_CA, uint256) or name & (2**152 - 1) == convert(_PLATFORM_CA, uint256)


@internal
@pure
def _platform(der: Bytes[PADDED_LENGTH], certificate: Certificate) -> Platform:
    """
    @dev What a PCK certificate says of its platform; reverts when it is no PCK certificate.
    """
    sgx: Span = certificate.sgx
    assert sgx.end != 0, "dcap: not a PCK certificate"
    constraints: Span = certificate.constraints
    is_ca: bool = True
    if constraints.end - constraints.start == 2:
        is_ca = self._word(der, constraints.start) >> 240 != convert(_NO_CA, uint256)
    assert not is_ca, "dcap: not a PCK certificate"
    assert self._may(der, certificate.usage, _DIGITAL_SIGNATURE), "dcap: not a PCK certificate"
    values: Span = self._element(der, sgx.start, sgx.end, _SEQUENCE)
    self._must(values.end == sgx.end)
    platform: Platform = empty(Platform)
    found: uint256 = 0
    at: uint256 = values.start
    for i: uint256 in range(_MAX_EXTENSIONS):
        if at == values.end:
            break
        pair: Span = self._element(der, at, values.end, _SEQUENCE)
        word: uint256 = self._word(der, pair.start)
        # after the OID of twelve bytes an OCTET STRING of two, or of six
        if word >> 160 == convert(_SGX_PCE_ID, uint256):
            self._must(pair.end == pair.start + 16)
            self._must((word >> 144) & 65535 == 1026)
            platform.pce_id = (word >> 128) & 65535
            found += 1
        elif word >> 160 == convert(_SGX_FMSPC, uint256):
            self._must(pair.end == pair.start + 20)
            self._must((word >> 144) & 65535 == 1030)
            platform.fmspc = (word >> 96) & (2**48 - 1)
            found += 256
        at = pair.end
    assert at == values.end and found == 257, "dcap: not a PCK certificate"
    return platform


@internal
@pure
def _extensions(der: Bytes[PADDED_LENGTH], extensions: Span) -> (Span, Span, Span):
    """
    @dev Where the values of basicConstraints, keyUsage and Intel's extension are; nowhere when there is none.
    """
    constraints: Span = empty(Span)
    usage: Span = empty(Span)
    sgx: Span = empty(Span)
    at: uint256 = extensions.start
    for i: uint256 in range(_MAX_EXTENSIONS):
        if at == extensions.end:
            break
        one: Span = self._element(der, at, extensions.end, _SEQUENCE)
        word: uint256 = self._word(der, one.start)
        name: Span = self._element(der, one.start, one.end, _OBJECT_IDENTIFIER)
        # OIDs here have tag and length before them, so that none begins another
        value: uint256 = name.end
        critical: bool = self._word(der, value) >> 232 == convert(_TRUE, uint256)
        if critical:
            value += 3
        content: Span = self._element(der, value, one.end, _OCTET_STRING)
        self._must(content.end == one.end)
        at = one.end
        if word >> 216 == convert(_BASIC_CONSTRAINTS, uint256):
            self._must(constraints.end == 0)
            constraints = content
        elif word >> 216 == convert(_KEY_USAGE, uint256):
            self._must(usage.end == 0)
            usage = content
        elif word >> 168 == convert(_SGX, uint256):
            self._must(sgx.end == 0)
            sgx = content
        else:
            # RFC 5280, section 4.2
            assert not critical, "dcap: critical extension is not known"
    self._must(at == extensions.end)
    return constraints, usage, sgx


@internal
@pure
def _may(der: Bytes[PADDED_LENGTH], usage: Span, bit: uint256) -> bool:
    """
    @dev Whether a key may be used so, by the value of keyUsage: tag, length, count of unused bits, and the bits.
    """
    if usage.end - usage.start != 4:
        return False
    word: uint256 = self._word(der, usage.start)
    return word >> 240 == convert(_USAGE, uint256) and (word >> 224) & bit != 0


@internal
@pure
def _signature(der: Bytes[PADDED_LENGTH], at: uint256) -> p256.Signature:
    size: uint256 = len(der) - 32
    self._must(at + 12 <= size)
    self._must(self._word(der, at) >> 160 == convert(_ECDSA_WITH_SHA256, uint256))
    bits: Span = self._element(der, at + 12, size, _BIT_STRING)
    self._must(bits.end == size)
    self._must(bits.start < size)
    # no bit of the last byte is unused
    self._must(self._word(der, bits.start) >> 248 == 0)
    start: uint256 = bits.start + 1
    pair: Span = self._element(der, start, size, _SEQUENCE)
    r: Span = self._element(der, pair.start, size, _INTEGER)
    s: Span = self._element(der, r.end, size, _INTEGER)
    self._must(pair.end == size and s.end == size)
    return p256.Signature(
        r=convert(self._integer(der, r), bytes32), s=convert(self._integer(der, s), bytes32)
    )


@internal
@pure
def _integer(der: Bytes[PADDED_LENGTH], span: Span) -> uint256:
    """
    @dev A positive INTEGER of up to 256 bits, in its shortest form.
    """
    size: uint256 = span.end - span.start
    self._must(size != 0 and size <= 33)
    word: uint256 = self._word(der, span.start)
    first: uint256 = word >> 248
    self._must(first < 128)
    if first == 0 and size > 1:
        # there for the sign alone
        self._must((word >> 240) & 128 != 0)
        return self._word(der, span.start + 1) >> (8 * (33 - size))
    self._must(size <= 32)
    return word >> (8 * (32 - size))


@internal
@pure
def _element(der: Bytes[PADDED_LENGTH], at: uint256, limit: uint256, tag: uint256) -> Span:
    """
    @dev The content of the element that begins at `at`, and ends no later than `limit`.
    """
    head: uint256 = self._word(der, at)
    self._must(head >> 248 == tag)
    start: uint256 = at + 2
    size: uint256 = (head >> 240) & 255
    if size == 129:
        start = at + 3
        size = (head >> 232) & 255
        self._must(size >= 128)
    elif size == 130:
        start = at + 4
        size = (head >> 224) & 65535
        self._must(size >= 256)
    else:
        self._must(size < 128)
    self._must(start + size <= limit)
    return Span(start=start, end=start + size)


@internal
@pure
def _time(head: uint256, at: uint256) -> (uint256, uint256):
    """
    @dev The Unix second that a UTCTime or GeneralizedTime at `at` names, and where it ends. RFC 5280 knows them
         in UTC alone, to the second.
    """
    digits: uint256 = 0
    end: uint256 = 0
    if head >> 240 == _UTC_TIME << 8 | 13:
        # two digits for the year, from 1950 to 2049: before them belong "19" or "20"
        century: uint256 = 12601 if (head >> 232) & 255 >= 53 else 12848
        digits = century << 104 | (head >> 136) & (2**104 - 1)
        end = at + 15
    else:
        self._must(head >> 240 == _GENERALIZED_TIME << 8 | 15)
        digits = (head >> 120) & (2**120 - 1)
        end = at + 17
    self._must(digits & 255 == 90)
    fields: uint256[7] = empty(uint256[7])
    for i: uint256 in range(7):
        tens: uint256 = (digits >> (112 - 16 * i)) & 255
        ones: uint256 = (digits >> (104 - 16 * i)) & 255
        self._must(tens >= 48 and tens <= 57 and ones >= 48 and ones <= 57)
        fields[i] = (tens - 48) * 10 + ones - 48
    year: uint256 = fields[0] * 100 + fields[1]
    month: uint256 = fields[2]
    day: uint256 = fields[3]
    # RFC 5280 writes the years up to 2049 in the short form alone
    self._must(year >= 1970 and (end == at + 15 or year >= 2050))
    self._must(month != 0 and month <= 12 and day != 0)
    self._must(fields[4] < 24 and fields[5] < 60 and fields[6] < 60)
    # years count from March here, so that the leap day is the last
    if month <= 2:
        year -= 1
        month += 9
    else:
        month -= 3
    start: uint256 = (153 * month + 2) // 5
    days: uint256 = year * 365 + year // 4 - year // 100 + year // 400
    # where the next month begins: a March follows the last
    next_month: uint256 = days + (153 * month + 155) // 5
    if month == 11:
        year += 1
        next_month = year * 365 + year // 4 - year // 100 + year // 400
    days += start + day - 1
    self._must(days < next_month)
    # 719468 days lie between 1 March of the year 0 and 1970
    return (days - 719468) * 86400 + fields[4] * 3600 + fields[5] * 60 + fields[6], end


@internal
@pure
def _word(der: Bytes[PADDED_LENGTH], at: uint256) -> uint256:
    return convert(extract32(der, at), uint256)


@internal
@pure
def _must(condition: bool):
    assert condition, "dcap: certificate is malformed"
