"""Quotes of real machines, down to Intel's root: the contract reads in them what they say."""

import json
from collections.abc import Iterator
from dataclasses import replace

import boa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from eth_utils import keccak
from p256 import absent
from quoting import RECORDED, VECTORS, certificate_with_s, recorded, recorded_bytes, with_high_s
from world import WITHOUT_PLATFORMS, World, actor, deploy, reverts

from oracle.attestation.quote import parse_quote
from settlement.dcap import INTEL, P256Key, QuoteParts, QuoteUnusable, split_quote
from settlement.reverts import Revert


@pytest.fixture
def world() -> Iterator[World]:
    with World.temporary(trust=INTEL) as world:
        yield world


@pytest.mark.parametrize("name", RECORDED)
def test_real_platform_is_registered_by_its_certificate(world: World, name: str) -> None:
    world.set_clock(RECORDED[name])
    parts = recorded(name)
    certificate = x509.load_der_x509_certificate(parts.certificates[0])
    end = int(certificate.not_valid_after_utc.timestamp())
    extension = certificate.extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.2.840.113741.1.13.1")
    ).value.public_bytes()
    fmspc_at = extension.index(bytes.fromhex("060a2a864886f84d010d01040406"))
    fmspc = int.from_bytes(extension[fmspc_at + 14 : fmspc_at + 20], "big")
    platform = world.register_platform(parts)
    assert world.events(world.enclaves) == [
        (
            "PlatformRegistered",
            {
                "platform": platform,
                "issuer": parts.issuer.digest,
                "serial": certificate.serial_number,
                "fmspc": fmspc,
                "pce_id": 0,
                "not_after": end,
            },
        )
    ]
    assert platform == parts.pck_key.digest
    assert tuple(world.enclaves.platform(platform)) == (False, end, fmspc, 0, 0, 0, 0)


@pytest.mark.parametrize("name", RECORDED)
def test_real_quote_reports_what_the_verifier_reads(world: World, name: str) -> None:
    parts, quote = recorded(name), parse_quote(recorded_bytes(name))
    tee, measurement, module_svn, binding, configuration = world.enclaves.check_quote(
        parts.abi_value()
    )
    assert tee == (0x00 if quote.kind == "sgx" else 0x81)
    assert measurement == quote.measurement
    assert module_svn == parts.module_svn == (0 if tee == 0 else module_svn)
    assert binding + configuration == quote.report_data


@pytest.mark.parametrize("name", RECORDED)
def test_real_quote_registers_no_key_that_it_does_not_bind(world: World, name: str) -> None:
    """All else about it holds: a platform certified and judged, an allowed measurement."""
    world.set_clock(RECORDED[name])
    parts = recorded(name)
    world.register_platform(parts)
    world.judge(world.verdict(parts))
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
        world.register_quote(parts, actor("enclave 2").address)
    measurement = parse_quote(recorded_bytes(name)).measurement
    world.govern(world.enclaves, "allow_measurement", measurement)
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        world.register_quote(parts, actor("enclave 2").address)


@pytest.mark.parametrize("name", RECORDED)
def test_both_halves_of_s_are_valid(world: World, name: str) -> None:
    world.set_clock(RECORDED[name])
    parts = recorded(name)
    high = replace(
        parts,
        signature=with_high_s(parts.signature),
        report_signature=with_high_s(parts.report_signature),
    )
    assert (
        world.enclaves.check_quote(high.abi_value())[1]
        == parse_quote(recorded_bytes(name)).measurement
    )
    for half in (True, False):
        certificate = certificate_with_s(parts.certificates[0], high=half)
        with boa.env.anchor():
            assert (
                world.enclaves.register_platform(
                    certificate, parts.issuer.abi_value(), sender=actor("anyone").address
                )
                == parts.pck_key.digest
            )


@pytest.mark.parametrize("name", RECORDED)
def test_without_the_precompile_nothing_passes(world: World, name: str) -> None:
    world.set_clock(RECORDED[name])
    parts = recorded(name)
    with absent():
        with reverts(Revert.DCAP_P256_PRECOMPILE_IS_MISSING):
            world.enclaves.check_quote(parts.abi_value())
        with reverts(Revert.DCAP_P256_PRECOMPILE_IS_MISSING):
            world.register_platform(parts)
    assert world.enclaves.platform(parts.pck_key.digest)[1] == 0


def test_without_the_precompile_a_registry_still_has_its_committee() -> None:
    with absent():
        with reverts(Revert.DCAP_P256_PRECOMPILE_IS_MISSING), World.temporary(trust=INTEL):
            pass
        with World.temporary(trust=WITHOUT_PLATFORMS) as world:
            assert world.enclaves.is_valid(actor("enclave").address, 1)
            with reverts(Revert.DCAP_CA_NOT_ALLOWED):
                world.register_platform(recorded("sgx/phala_v3"))


def test_intels_cas_are_allowed_from_the_start(world: World) -> None:
    for certificate in INTEL.authorities:
        parsed = x509.load_der_x509_certificate(certificate)
        expiry = world.enclaves.authority_expiry(P256Key.of(parsed).digest)
        assert expiry == int(parsed.not_valid_after_utc.timestamp())


def test_intels_other_certificates_are_no_ca_for_platforms(world: World) -> None:
    """The root itself, the certificate that signs TCB information, and platforms' own."""
    issuer = recorded("sgx/phala_v3").certificates
    for certificate, reason in [
        (issuer[2], Revert.DCAP_NOT_A_PCK_CA_CERTIFICATE),
        (tcb_signing(), Revert.DCAP_NOT_A_PCK_CA_CERTIFICATE),
        (issuer[0], Revert.DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE),
    ]:
        with reverts(reason):
            world.govern(world.enclaves, "allow_authority", certificate)


def test_certificates_of_the_root_are_no_platforms(world: World) -> None:
    """As if the root were a CA for platforms: its digest is not allowed."""
    root = INTEL.root.abi_value()
    for certificate in (tcb_signing(), *recorded("sgx/phala_v3").certificates[1:]):
        with reverts(Revert.DCAP_CA_NOT_ALLOWED):
            world.enclaves.register_platform(certificate, root, sender=actor("anyone").address)
    reader = deploy("PckCertificates", sender=actor("deployer").address)
    for certificate in (tcb_signing(), *recorded("sgx/phala_v3").certificates[1:]):
        with reverts(Revert.DCAP_NOT_A_PCK_CERTIFICATE):
            reader.read_pck(certificate, *root)


def tcb_signing() -> bytes:
    """Intel's certificate that signs TCB information."""
    collateral = json.loads((VECTORS / "sgx/phala_v3.collateral.json").read_text())
    chain = x509.load_pem_x509_certificates(collateral["tcb_info_issuer_chain"].encode())
    return chain[0].public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("name", ["tdx/automata_v5_service_td", "tdx/phala_v5_no_tcb_level"])
def test_version_5_is_not_supported(world: World, name: str) -> None:
    raw = (VECTORS / f"{name}.quote.bin").read_bytes()
    with pytest.raises(QuoteUnusable, match="neither SGX version 3 nor TDX version 4"):
        split_quote(raw)
    # its header before the report of the length that version 4 has
    parts = replace(recorded("tdx/near_v4"), signed=raw[:48] + raw[54:638])
    with reverts(Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED):
        world.enclaves.check_quote(parts.abi_value())


@pytest.mark.parametrize("name", RECORDED)
def test_split_quote_refuses_every_truncation(name: str) -> None:
    raw = recorded_bytes(name)
    for size in [*range(48), *range(48, len(raw), 97), len(raw) - 1]:
        with pytest.raises(QuoteUnusable):
            split_quote(raw[:size])
    with pytest.raises(QuoteUnusable):
        split_quote(raw + b"\0")


@pytest.mark.parametrize("name", RECORDED)
def test_attestation_digest_is_of_the_signed_part(name: str) -> None:
    assert keccak(recorded(name).signed) == parse_quote(recorded_bytes(name)).attestation_digest


def test_parts_put_together_are_the_quote() -> None:
    parts: QuoteParts = recorded("sgx/phala_v3")
    start = (
        parts.signed
        + recorded_bytes("sgx/phala_v3")[432:436]
        + parts.signature
        + parts.attestation_key.x
        + parts.attestation_key.y
        + parts.report
        + parts.report_signature
        + b"\x20\0"
        + parts.authentication
    )
    assert recorded_bytes("sgx/phala_v3").startswith(start)
