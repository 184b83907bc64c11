"""No byte that counts can be changed, and what can be re-encoded makes no second identity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.attestation.collateral import FileCollateral
from oracle.attestation.errors import AttestationRefused, QuoteRefused
from oracle.attestation.policy import TcbAllowance, TcbPolicy
from oracle.attestation.quote import parse_quote
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DevPlatform

VerifierOf = Callable[..., QuoteVerifier]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SGX_SIGNATURE = 436
SGX_CERTIFICATES = 1052
TDX_CERTIFICATES = 1258


def assert_each_byte_counts(
    verifier: QuoteVerifier, quote: bytes, now: int, offsets: range
) -> None:
    assert verifier.verify(quote, now)
    for offset in offsets:
        tampered = bytearray(quote)
        tampered[offset] ^= 1 << offset % 8
        try:
            verifier.verify(bytes(tampered), now)
        except AttestationRefused:
            continue
        pytest.fail(f"byte {offset} can be changed")


def test_every_byte_before_the_certificates_of_a_simulated_quote_counts(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    assert dev_quote[SGX_CERTIFICATES:].startswith(b"-----BEGIN CERTIFICATE-----")
    assert_each_byte_counts(verifier_of(platform), dev_quote, now, range(SGX_CERTIFICATES))


@pytest.mark.parametrize(("version", "end"), [(4, 1258), (5, 1264)])
def test_every_byte_before_the_certificates_of_a_simulated_td_quote_counts(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: Any, end: int
) -> None:
    quote = platform.td_quote(bytes(range(48)), bytes(64), version=version)
    assert quote[end:].startswith(b"-----BEGIN CERTIFICATE-----")
    verifier = verifier_of(platform.with_collateral(now, tee="tdx"))
    assert_each_byte_counts(verifier, quote, now, range(end))


@pytest.mark.parametrize("version", [4, 5])
def test_longer_certificate_tail_of_a_td_quote_makes_no_second_identity(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: Any
) -> None:
    quote = platform.td_quote(bytes(48), bytes(64), version=version)
    grown = bytearray(quote + b"\n\n")
    for offset in (632, 766, 1254):
        at = offset + 6 * (version == 5)
        size = int.from_bytes(grown[at : at + 4], "little") + 2
        grown[at : at + 4] = size.to_bytes(4, "little")
    verifier = verifier_of(platform.with_collateral(now, tee="tdx"))
    assert verifier.verify(bytes(grown), now) == verifier.verify(quote, now)


def test_every_byte_before_the_certificates_of_an_sgx_quote_counts(vectors: Path) -> None:
    quote = (vectors / "sgx" / "automata_v3.quote.bin").read_bytes()
    now = 1755236700
    allowance = TcbAllowance(
        status="SWHardeningNeeded", advisories=frozenset({"INTEL-SA-00615"}), until=now + 1
    )
    verifier = QuoteVerifier(
        chain_id=137,
        collateral=FileCollateral(vectors / "sgx" / "automata_v3.collateral.json"),
        policy=TcbPolicy(allowances=(allowance,)),
    )
    assert quote[SGX_CERTIFICATES:].startswith(b"-----BEGIN CERTIFICATE-----")
    assert_each_byte_counts(verifier, quote, now, range(SGX_CERTIFICATES))


def test_every_byte_before_the_certificates_of_a_tdx_quote_counts(vectors: Path) -> None:
    quote = (vectors / "tdx" / "phala_v4.quote.bin").read_bytes()[:4936]
    source = FileCollateral(vectors / "tdx" / "phala_v4.collateral.json")
    verifier = QuoteVerifier(chain_id=137, collateral=source)
    assert quote[TDX_CERTIFICATES:].startswith(b"-----BEGIN CERTIFICATE-----")
    assert_each_byte_counts(verifier, quote, 1751500800, range(TDX_CERTIFICATES))


def test_change_in_the_certificates_is_refused_or_keeps_the_identity(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    verifier = verifier_of(platform)
    genuine = verifier.verify(dev_quote, now)
    kept = refused = 0
    for offset in range(SGX_CERTIFICATES, len(dev_quote), 7):
        tampered = bytearray(dev_quote)
        tampered[offset] ^= 1
        try:
            assert verifier.verify(bytes(tampered), now) == genuine
            kept += 1
        except QuoteRefused:
            refused += 1
    assert kept > 0, "the library takes no change at all: this test has lost its subject"
    assert refused > 100


@pytest.mark.parametrize("tail", [b"\0", b"\n\n", b"a remark after the last certificate\n"])
def test_longer_certificate_tail_makes_no_second_identity(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int, tail: bytes
) -> None:
    grown = bytearray(dev_quote + tail)
    for offset in (432, 1048):
        size = int.from_bytes(grown[offset : offset + 4], "little") + len(tail)
        grown[offset : offset + 4] = size.to_bytes(4, "little")
    verifier = verifier_of(platform)
    assert verifier.verify(bytes(grown), now) == verifier.verify(dev_quote, now)


def test_mirrored_signature_makes_no_second_identity(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    s = int.from_bytes(dev_quote[SGX_SIGNATURE + 32 : SGX_SIGNATURE + 64], "big")
    mirrored = bytearray(dev_quote)
    mirrored[SGX_SIGNATURE + 32 : SGX_SIGNATURE + 64] = (P256_ORDER - s).to_bytes(32, "big")
    assert mirrored != dev_quote
    verifier = verifier_of(platform)
    assert verifier.verify(bytes(mirrored), now) == verifier.verify(dev_quote, now)


def test_parts_of_two_genuine_quotes_do_not_make_a_third(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    other = platform.quote(bytes(32), bytes(64))
    assert parse_quote(other).attestation_digest != parse_quote(dev_quote).attestation_digest
    with pytest.raises(QuoteRefused) as refusal:
        verifier_of(platform).verify(other[:432] + dev_quote[432:], now)
    assert refusal.value.reason == "ISV enclave report signature is invalid"
