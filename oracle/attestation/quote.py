"""The structure of SGX v3 and TDX v4/v5 quotes, read strictly.

Source: Intel SGX ECDSA QuoteLibReference and Intel TDX DCAP Quoting Library, "Quote format". All
integers are little-endian. Reading proves nothing: `oracle.attestation.verify` checks signatures.
"""

from dataclasses import dataclass
from typing import Literal

from eth_utils.crypto import keccak

from oracle.attestation.errors import QuoteMalformed, TrailingBytes

SIMULATED = b"SIMULATED-DEV-ONLY".ljust(20, b"\0")
"""The header's user data in every quote of a development platform."""

Kind = Literal["sgx", "tdx"]

_HEADER = 48
_SGX_REPORT = 384
_TD_REPORT_10 = 584
_TD_REPORT_15 = 648
_V5_BODIES = {2: _TD_REPORT_10, 3: _TD_REPORT_15}
_KINDS: dict[tuple[int, int], Kind] = {(3, 0x00): "sgx", (4, 0x81): "tdx", (5, 0x81): "tdx"}
_ECDSA_P256 = 2
_PCK_CHAIN = 5
_QE_REPORT_CERTIFICATION = 6


@dataclass(frozen=True)
class Quote:
    """What a quote says, not yet believed.

    `signed` is header and report (v5: with the body descriptor), which the attestation key signs.
    `measurement` is MRENCLAVE, or for TDX keccak-256 of MRTD, RTMR0, RTMR1, RTMR2 and RTMR3.
    `pck_chain` is the platform's certificate chain as PEM.
    """

    raw: bytes
    kind: Kind
    version: int
    signed: bytes
    measurement: bytes
    report_data: bytes
    debug: bool
    simulated: bool
    pck_chain: bytes

    @property
    def attestation_digest(self) -> bytes:
        """keccak-256 of the signed part, which alone cannot be encoded in a second way."""
        return keccak(self.signed)


class _Reader:
    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.position = 0

    def take(self, count: int, field: str) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise QuoteMalformed(f"{self._name} ends inside {field}")
        start, self.position = self.position, end
        return self._data[start:end]

    def integer(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")

    def expect(self, size: int, field: str, value: int) -> None:
        found = self.integer(size, field)
        if found != value:
            raise QuoteMalformed(f"{field} is {found}, expected {value}")

    def finish(self) -> None:
        if self.position != len(self._data):
            raise QuoteMalformed(f"{self._name} is longer than its content")


def parse_quote(data: bytes) -> Quote:
    """Read a quote; every length in it must agree with the bytes that are there.

    Raises:
        TrailingBytes: when bytes follow the quote.
        QuoteMalformed: for every other deviation from the format.
    """
    quote = _Reader(data, "quote")
    header = quote.take(_HEADER, "header")
    version = int.from_bytes(header[0:2], "little")
    key_type = int.from_bytes(header[2:4], "little")
    tee_type = int.from_bytes(header[4:8], "little")
    kind = _KINDS.get((version, tee_type))
    if kind is None:
        raise QuoteMalformed(f"version {version} with TEE type {tee_type:#x} is not supported")
    if key_type != _ECDSA_P256:
        raise QuoteMalformed(f"attestation key type {key_type} is not ECDSA P-256")

    body = quote.take(_body_size(quote, version, kind), "report")
    signed = data[: quote.position]
    size = quote.integer(4, "signature data size")
    signature_data = quote.take(size, "signature data")
    if quote.position != len(data):
        raise TrailingBytes(quote.position, len(data))

    if kind == "sgx":
        measurement, debug = body[64:96], bool(body[48] & 0x02)
    else:
        measurement, debug = keccak(body[136:184] + body[328:520]), bool(body[120] & 0x01)
    report_data = body[320:384] if kind == "sgx" else body[520:584]
    return Quote(
        raw=data,
        kind=kind,
        version=version,
        signed=signed,
        measurement=measurement,
        report_data=report_data,
        debug=debug,
        simulated=header[28:48] == SIMULATED,
        pck_chain=_pck_chain(signature_data, version),
    )


def _body_size(quote: _Reader, version: int, kind: Kind) -> int:
    if version < 5:
        return _SGX_REPORT if kind == "sgx" else _TD_REPORT_10
    body_type = quote.integer(2, "body type")
    size = _V5_BODIES.get(body_type)
    if size is None:
        raise QuoteMalformed(f"body type {body_type} is not a TD report")
    quote.expect(4, "body size", size)
    return size


def _pck_chain(signature_data: bytes, version: int) -> bytes:
    data = _Reader(signature_data, "signature data")
    data.take(64, "signature")
    data.take(64, "attestation key")
    if version >= 4:
        data.expect(2, "certification type", _QE_REPORT_CERTIFICATION)
        size = data.integer(4, "certification size")
        certification = data.take(size, "QE certification data")
        data.finish()
        data = _Reader(certification, "QE certification data")
    data.take(_SGX_REPORT, "QE report")
    data.take(64, "QE report signature")
    data.take(data.integer(2, "QE authentication size"), "QE authentication data")
    data.expect(2, "certificate type", _PCK_CHAIN)
    chain = data.take(data.integer(4, "certificate size"), "certificates")
    data.finish()
    return chain
