"""Every length and type in a quote is checked before anything is believed."""

from typing import Any

import dcap_qvl
import pytest
from eth_utils.crypto import keccak
from hypothesis import given as given_any
from hypothesis import strategies as st

from oracle.attestation.errors import QuoteMalformed, TrailingBytes
from oracle.attestation.quote import SIMULATED, parse_quote
from oracle.clients.edge import devplatform
from oracle.clients.edge.devplatform import DevPlatform


def changed(quote: bytes, offset: int, value: bytes) -> bytes:
    return quote[:offset] + value + quote[offset + len(value) :]


def test_sgx_quote_gives_its_fields(dev_quote: bytes) -> None:
    quote = parse_quote(dev_quote)
    assert (quote.kind, quote.version, quote.debug, quote.simulated) == ("sgx", 3, False, True)
    assert quote.measurement == bytes(range(32))
    assert quote.report_data == bytes(range(64, 128))
    assert quote.signed == dev_quote[:432]
    assert quote.attestation_digest == keccak(dev_quote[:432])


def test_td_measurement_is_the_digest_of_mrtd_and_all_rtmrs(independent: dict[str, Any]) -> None:
    for name, signed in [("tdx_v4", 632), ("tdx_v5", 638)]:
        raw = bytes.fromhex(independent[name])
        report = dcap_qvl.parse_quote(raw).report
        registers = [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3]
        quote = parse_quote(raw)
        assert quote.measurement == keccak(report.mr_td + b"".join(registers))
        assert quote.report_data == report.report_data
        assert quote.signed == raw[:signed]


@pytest.mark.parametrize("register", range(5))
def test_each_td_register_changes_the_measurement(
    independent: dict[str, Any], register: int
) -> None:
    raw = bytes.fromhex(independent["tdx_v4"])
    offset = 48 + [136, 328, 376, 424, 472][register]
    other = changed(raw, offset, bytes([raw[offset] ^ 1]))
    assert parse_quote(other).measurement != parse_quote(raw).measurement


def test_mark_is_the_one_that_the_platform_puts() -> None:
    assert devplatform.SIMULATED.ljust(20, b"\0") == SIMULATED


@pytest.mark.parametrize(
    ("version", "tee_type"), [(2, 0), (3, 0x81), (4, 0), (5, 0), (6, 0x81), (3, 0x01)]
)
def test_unsupported_version_is_refused(dev_quote: bytes, version: int, tee_type: int) -> None:
    header = version.to_bytes(2, "little") + b"\2\0" + tee_type.to_bytes(4, "little")
    with pytest.raises(QuoteMalformed) as refusal:
        parse_quote(changed(dev_quote, 0, header))
    assert refusal.value.reason == (
        f"version {version} with TEE type {tee_type:#x} is not supported"
    )


def test_other_attestation_key_type_is_refused(dev_quote: bytes) -> None:
    with pytest.raises(QuoteMalformed, match="attestation key type 3 is not ECDSA P-256"):
        parse_quote(changed(dev_quote, 2, b"\3\0"))


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (432, b"\xff\xff\xff\xff", "quote ends inside signature data"),
        (1012, b"\xff\xff", "signature data ends inside QE authentication data"),
        (1046, b"\6\0", "certificate type is 6, expected 5"),
        (1048, b"\0\0\0\0", "signature data is longer than its content"),
        (1048, b"\xff\xff\xff\xff", "signature data ends inside certificates"),
    ],
)
def test_length_that_does_not_fit_is_refused(
    dev_quote: bytes, offset: int, value: bytes, reason: str
) -> None:
    with pytest.raises(QuoteMalformed) as refusal:
        parse_quote(changed(dev_quote, offset, value))
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("name", "offset", "value", "reason"),
    [
        ("tdx_v4", 764, b"\5\0", "certification type is 5, expected 6"),
        ("tdx_v4", 766, b"\0\1\0\0", "signature data is longer than its content"),
        ("tdx_v5", 48, b"\1\0", "body type 1 is not a TD report"),
        ("tdx_v5", 50, b"\x88\2\0\0", "body size is 648, expected 584"),
    ],
)
def test_td_structure_that_does_not_fit_is_refused(
    independent: dict[str, Any], name: str, offset: int, value: bytes, reason: str
) -> None:
    with pytest.raises(QuoteMalformed) as refusal:
        parse_quote(changed(bytes.fromhex(independent[name]), offset, value))
    assert refusal.value.reason == reason


def test_bytes_hidden_in_td_certification_data_are_refused(independent: dict[str, Any]) -> None:
    raw = bytes.fromhex(independent["tdx_v4"])
    grown = bytearray(raw + b"\0")
    for offset in (632, 766):
        size = int.from_bytes(grown[offset : offset + 4], "little") + 1
        grown[offset : offset + 4] = size.to_bytes(4, "little")
    with pytest.raises(QuoteMalformed) as refusal:
        parse_quote(bytes(grown))
    assert refusal.value.reason == "QE certification data is longer than its content"


def test_quote_cut_anywhere_is_refused(dev_quote: bytes) -> None:
    for end in range(0, len(dev_quote), 13):
        with pytest.raises(QuoteMalformed) as refusal:
            parse_quote(dev_quote[:end])
        assert not isinstance(refusal.value, TrailingBytes)
        assert "quote ends inside" in refusal.value.reason


def test_two_quotes_in_a_row_are_refused(dev_quote: bytes) -> None:
    with pytest.raises(TrailingBytes) as refusal:
        parse_quote(dev_quote + dev_quote)
    assert (refusal.value.end, refusal.value.length) == (len(dev_quote), 2 * len(dev_quote))


@given_any(
    data=st.binary(max_size=1200), header=st.sampled_from([(3, 0), (4, 0x81), (5, 0x81), (0, 0)])
)
def test_no_bytes_make_the_parser_fail_otherwise(data: bytes, header: tuple[int, int]) -> None:
    version, tee_type = header
    start = version.to_bytes(2, "little") + b"\2\0" + tee_type.to_bytes(4, "little")
    with pytest.raises(QuoteMalformed):
        parse_quote(start + data)


def test_debug_flag_is_read(platform: DevPlatform, independent: dict[str, Any]) -> None:
    assert parse_quote(platform.quote(bytes(32), bytes(64), debug=True)).debug
    raw = bytes.fromhex(independent["tdx_v4"])
    assert not parse_quote(raw).debug
    assert parse_quote(changed(raw, 168, b"\1")).debug
