"""A quote laid out for a person, field by field. Reading proves nothing: `report` does the checks.

Sources: Intel SGX ECDSA QuoteLibReference and Intel TDX DCAP Quoting Library, "Quote format"; Intel
SDM 3D, "REPORT"; Intel TDX module ABI, "TDREPORT_STRUCT".
"""

from collections.abc import Callable

from cryptography import x509
from cryptography.x509.oid import NameOID

from oracle.attestation.collateral import X509_ERRORS
from oracle.attestation.errors import TrailingBytes
from oracle.attestation.quote import SIMULATED, Kind, Quote, parse_quote
from settlement.types import Bytes32, Frozen, to_hex

INTEL_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

_TEES = {0x00: "SGX", 0x81: "TDX"}
_BODY_TYPES = {2: "TD report 1.0", 3: "TD report 1.5"}
_CERTIFICATIONS = {5: "PCK certificate chain as PEM", 6: "QE report with its certification"}
_TD_REPORT_10 = 584


class QuoteField(Frozen):
    """One field: where it lies (bytes), what is there (hex), and what that means."""

    name: str
    offset: int
    size: int
    value: str
    meaning: str


class Explanation(Frozen):
    """A quote's fields in order, without a gap, and what this system calls it by.

    `measurement` is what governance allows on chain, `attestation_digest` what the committee signs.
    """

    kind: Kind
    version: int
    debug: bool
    simulated: bool
    measurement: Bytes32
    attestation_digest: Bytes32
    fields: tuple[QuoteField, ...]


def explain(data: bytes) -> Explanation:
    """Lay a quote out. Bytes after its end are a last field.

    Raises:
        QuoteMalformed: when it is not a quote.
    """
    quote = _quote_at_the_front(data)
    walk = _Walk(data)
    _header(walk, quote)
    if quote.kind == "sgx":
        _enclave_report(walk, "")
    else:
        _td_report(walk, len(quote.signed) - walk.position)
    _signature_data(walk, quote)
    if walk.position < len(data):
        walk.take(
            "after the quote",
            len(data) - walk.position,
            "not part of it: drivers pad with zeros, and a verifier wants them cut",
        )
    return Explanation(
        kind=quote.kind,
        version=quote.version,
        debug=quote.debug,
        simulated=quote.simulated,
        measurement=quote.measurement,
        attestation_digest=quote.attestation_digest,
        fields=tuple(walk.fields),
    )


class _Walk:
    """Takes fields one after the other, and notes where each lay."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.fields: list[QuoteField] = []
        self.position = 0

    def take(self, name: str, size: int, meaning: str | Callable[[bytes], str]) -> bytes:
        value = self._data[self.position : self.position + size]
        said = meaning if isinstance(meaning, str) else meaning(value)
        self.fields.append(
            QuoteField(
                name=name, offset=self.position, size=size, value=to_hex(value), meaning=said
            )
        )
        self.position += size
        return value

    def number(self, name: str, size: int, meaning: str | Callable[[int], str] = "{}") -> int:
        def said(value: bytes) -> str:
            number = int.from_bytes(value, "little")
            return meaning.format(number) if isinstance(meaning, str) else meaning(number)

        return int.from_bytes(self.take(name, size, said), "little")


def _quote_at_the_front(data: bytes) -> Quote:
    try:
        return parse_quote(data)
    except TrailingBytes as trailing:
        return parse_quote(data[: trailing.end])


def _header(walk: _Walk, quote: Quote) -> None:
    walk.number("version", 2, "quote format {}")
    walk.number("attestation key type", 2, "{}: ECDSA on P-256")
    walk.number("TEE type", 4, lambda tee: _TEES[tee])
    if quote.version == 3:
        walk.number("quoting enclave SVN", 2, "security version {} of the quoting enclave")
        walk.number(
            "provisioning enclave SVN", 2, "security version {} of the provisioning enclave"
        )
    else:
        walk.take("reserved", 4, "unused in this version")
    walk.take("QE vendor", 16, lambda v: "Intel" if v == INTEL_VENDOR else "unknown to verifiers")
    walk.take("user data", 20, _user_data)
    if quote.version == 5:
        walk.number("body type", 2, lambda kind: _BODY_TYPES[kind])
        walk.number("body size", 4, "{} bytes of report follow")


def _user_data(value: bytes) -> str:
    if value == SIMULATED:
        return "SIMULATED-DEV-ONLY: a development platform's, which protects nothing"
    return "free; Intel's quoting enclave puts an identifier of the platform here"


def _enclave_report(walk: _Walk, of: str) -> None:
    walk.take(f"{of}CPU SVN", 16, "security versions of the processor's parts")
    walk.number(f"{of}MISCSELECT", 4, "extended features: {:#x}")
    walk.take(f"{of}reserved 1", 28, "zero")
    walk.take(f"{of}attributes", 16, _enclave_attributes)
    walk.take(f"{of}MRENCLAVE", 32, "the enclave's code and data as loaded: its measurement")
    walk.take(f"{of}reserved 2", 32, "zero")
    walk.take(f"{of}MRSIGNER", 32, "digest of the key that signed the enclave")
    walk.take(f"{of}reserved 3", 96, "zero")
    walk.number(f"{of}product id", 2)
    walk.number(f"{of}SVN", 2, "security version {}, by the enclave's signer")
    walk.take(f"{of}reserved 4", 60, "zero")
    meaning = "digest of attestation key and authentication data, then zero" if of else _BINDING
    walk.take(f"{of}report data", 64, meaning)


_BINDING = "what the enclave says: 32 bytes bind chain, registry, keys, nonce; 32 the configuration"


def _enclave_attributes(value: bytes) -> str:
    flags = int.from_bytes(value[:8], "little")
    mode = "DEBUG: the host can read its memory" if flags & 2 else "production"
    width = "64 bit" if flags & 4 else "32 bit"
    return f"{mode}, {width}; features {int.from_bytes(value[8:], 'little'):#x}"


def _td_attributes(value: bytes) -> str:
    flags = int.from_bytes(value, "little")
    mode = "DEBUG: the host can read its memory" if flags & 1 else "production"
    return f"{mode}; SEPT_VE_DISABLE {'on' if flags >> 28 & 1 else 'OFF'}; flags {flags:#x}"


def _td_report(walk: _Walk, size: int) -> None:
    walk.take("TEE TCB SVN", 16, "security versions of the TDX module's parts")
    walk.take("MRSEAM", 48, "measurement of the TDX module")
    walk.take("MRSIGNERSEAM", 48, "who signed the TDX module; zero is Intel")
    walk.take("SEAM attributes", 8, "zero")
    walk.take("TD attributes", 8, _td_attributes)
    walk.take("XFAM", 8, "extended features that the TD may use")
    walk.take("MRTD", 48, "the TD's memory as first loaded: its firmware")
    walk.take("MRCONFIGID", 48, "configuration that the owner named")
    walk.take("MROWNER", 48, "owner that the host named")
    walk.take("MROWNERCONFIG", 48, "owner's configuration that the host named")
    walk.take("RTMR0", 48, "firmware's configuration")
    walk.take("RTMR1", 48, "boot loader and kernel")
    walk.take("RTMR2", 48, "kernel's command line and first file system")
    walk.take("RTMR3", 48, "what the running system added")
    walk.take("report data", 64, _BINDING)
    if size > _TD_REPORT_10:
        walk.take("TEE TCB SVN 2", 16, "security versions now, after an update without a restart")
        walk.take("MRSERVICETD", 48, "service TDs that may move it; zero is none")


def _signature_data(walk: _Walk, quote: Quote) -> None:
    walk.number("signature data size", 4, "{} bytes follow")
    walk.take("quote signature", 64, "by the attestation key, over header and report")
    walk.take("attestation key", 64, "P-256, x and y")
    if quote.version > 3:
        walk.number("certification type", 2, lambda kind: f"{kind}: {_CERTIFICATIONS[kind]}")
        walk.number("certification size", 4, "{} bytes follow")
    _enclave_report(walk, "QE ")
    walk.take("QE report signature", 64, "by the platform's key (PCK), over the QE report")
    size = walk.number("QE authentication size", 2, "{} bytes follow")
    walk.take("QE authentication data", size, "chosen by the quoting enclave")
    walk.number("certificate type", 2, lambda kind: f"{kind}: {_CERTIFICATIONS[kind]}")
    size = walk.number("certificate size", 4, "{} bytes follow")
    walk.take("certificates", size, _certificates)


def _certificates(pem: bytes) -> str:
    try:
        subjects = [c.subject for c in x509.load_pem_x509_certificates(pem.rstrip(b"\0"))]
    except X509_ERRORS:
        return "not readable as certificates"
    return " < ".join(
        next((str(a.value) for a in subject if a.oid == NameOID.COMMON_NAME), "?")
        for subject in subjects
    )
