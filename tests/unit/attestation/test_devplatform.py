"""The development platform survives a restart, guards its keys, and stays off real chains."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import (
    COLLATERAL_VALIDITY,
    DevPlatform,
    DevPlatformRefused,
    DevPlatformUnreadable,
)
from settlement.deployment import REAL_CHAINS
from settlement.errors import InvalidInput

LOCAL_CHAIN = 31337
VerifierOf = Callable[..., QuoteVerifier]


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_real_chains_are_refused(platform: DevPlatform, chain_id: int, tmp_path: Path) -> None:
    with pytest.raises(DevPlatformRefused) as refusal:
        DevPlatform.create(0, chain_id=chain_id)
    assert refusal.value.chain_id == chain_id
    platform.save(tmp_path)
    with pytest.raises(DevPlatformRefused):
        DevPlatform.load(tmp_path, chain_id=chain_id)
    with pytest.raises(DevPlatformRefused):
        DevPlatform.open(tmp_path, 0, chain_id=chain_id)


def test_restarted_node_keeps_its_platform(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, tmp_path: Path
) -> None:
    platform.save(tmp_path)
    again = DevPlatform.load(tmp_path, chain_id=LOCAL_CHAIN)
    assert again.root_der == platform.root_der == (tmp_path / "root.der").read_bytes()
    assert again.collateral_json() == platform.collateral_json()
    quote = again.quote(bytes(32), bytes(64))
    assert verifier_of(platform).verify(quote, now).simulated


def test_open_makes_a_platform_once_and_refreshes_its_collateral(
    verifier_of: VerifierOf, now: int, tmp_path: Path
) -> None:
    directory = tmp_path / "platform"
    first = DevPlatform.open(directory, now, chain_id=LOCAL_CHAIN)
    later = now + 2 * COLLATERAL_VALIDITY
    second = DevPlatform.open(directory, later, chain_id=LOCAL_CHAIN)
    assert second.root_der == first.root_der
    assert (directory / "collateral.json").read_text() == second.collateral_json()
    quote = first.quote(bytes(32), bytes(64))
    assert verifier_of(second).verify(quote, later).tcb_status == "UpToDate"


def test_keys_are_readable_by_their_owner_alone(platform: DevPlatform, tmp_path: Path) -> None:
    directory = tmp_path / "platform"
    for _ in range(2):
        platform.save(directory)
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()}
        assert {name: mode for name, mode in modes.items() if name.endswith(".key")} == {
            f"{name}.key": 0o600 for name in ("root", "pck_ca", "pck", "tcb_signing", "attestation")
        }
        assert not [name for name in modes if name.endswith(".new")]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    public = [f for f in directory.iterdir() if not f.name.endswith(".key")]
    assert public
    assert not [f.name for f in public if b"PRIVATE" in f.read_bytes()]


def test_interrupted_save_is_made_anew(now: int, tmp_path: Path) -> None:
    first = DevPlatform.open(tmp_path, now, chain_id=LOCAL_CHAIN)
    (tmp_path / "collateral.json").unlink()
    second = DevPlatform.open(tmp_path, now, chain_id=LOCAL_CHAIN)
    assert second.root_der != first.root_der
    assert DevPlatform.load(tmp_path, chain_id=LOCAL_CHAIN).root_der == second.root_der


@pytest.mark.parametrize("name", ["root.key", "pck.pem", "attestation.key"])
def test_damaged_platform_is_named(platform: DevPlatform, tmp_path: Path, name: str) -> None:
    platform.save(tmp_path)
    (tmp_path / name).write_text("damaged")
    with pytest.raises(DevPlatformUnreadable) as refusal:
        DevPlatform.open(tmp_path, 0, chain_id=LOCAL_CHAIN)
    assert refusal.value.directory == tmp_path
    assert "BEGIN PRIVATE" not in str(refusal.value)


def test_missing_key_is_named(platform: DevPlatform, tmp_path: Path) -> None:
    platform.save(tmp_path)
    (tmp_path / "pck.key").unlink()
    with pytest.raises(DevPlatformUnreadable, match=r"pck\.key"):
        DevPlatform.load(tmp_path, chain_id=LOCAL_CHAIN)


def test_certificate_of_another_key_is_refused(
    platform: DevPlatform, now: int, tmp_path: Path
) -> None:
    platform.save(tmp_path)
    other = DevPlatform.create(now, chain_id=LOCAL_CHAIN)
    other.save(tmp_path / "other")
    (tmp_path / "pck.pem").write_bytes((tmp_path / "other" / "pck.pem").read_bytes())
    with pytest.raises(DevPlatformUnreadable) as refusal:
        DevPlatform.load(tmp_path, chain_id=LOCAL_CHAIN)
    assert refusal.value.reason == "pck.pem is not for pck.key"


def test_key_of_another_kind_is_refused(platform: DevPlatform, tmp_path: Path) -> None:
    platform.save(tmp_path)
    pem = ec.generate_private_key(ec.SECP256K1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "attestation.key").write_bytes(pem)
    with pytest.raises(DevPlatformUnreadable) as refusal:
        DevPlatform.load(tmp_path, chain_id=LOCAL_CHAIN)
    assert refusal.value.reason == "attestation.key is not a P-256 key"


@pytest.mark.parametrize(("measurement", "report_data"), [(31, 64), (32, 63), (33, 64), (32, 32)])
def test_quote_of_wrong_sizes_is_refused(
    platform: DevPlatform, measurement: int, report_data: int
) -> None:
    with pytest.raises(InvalidInput, match="32 bytes of measurement and 64 of report data"):
        platform.quote(bytes(measurement), bytes(report_data))


@pytest.mark.parametrize(
    ("mrtd", "rtmrs", "report_data"),
    [
        (47, (48, 48, 48, 48), 64),
        (48, (48, 48, 48, 32), 64),
        (48, (48, 48, 48, 48), 63),
    ],
)
def test_td_quote_of_wrong_sizes_is_refused(
    platform: DevPlatform, mrtd: int, rtmrs: tuple[int, ...], report_data: int
) -> None:
    registers: Any = tuple(bytes(size) for size in rtmrs)
    with pytest.raises(InvalidInput, match="48 bytes for each register and 64 of report data"):
        platform.td_quote(bytes(mrtd), bytes(report_data), rtmrs=registers)


def test_every_quote_bears_the_mark(platform: DevPlatform) -> None:
    quotes = [platform.quote(bytes(32), bytes(64))]
    quotes += [platform.td_quote(bytes(48), bytes(64), version=version) for version in (4, 5)]
    for quote in quotes:
        assert quote[28:48] == b"SIMULATED-DEV-ONLY\0\0"


def test_td_registers_stand_where_they_belong(platform: DevPlatform) -> None:
    rtmrs = (b"\1" * 48, b"\2" * 48, b"\3" * 48, b"\4" * 48)
    quote = platform.td_quote(b"\5" * 48, b"\6" * 64, rtmrs=rtmrs)
    report = dcap_qvl.parse_quote(quote).report
    assert (report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3) == rtmrs
    assert (report.mr_td, report.report_data) == (b"\5" * 48, b"\6" * 64)


def test_root_says_that_it_is_simulated(platform: DevPlatform) -> None:
    root = x509.load_der_x509_certificate(platform.root_der)
    assert "SIMULATED-DEV-ONLY" in root.subject.rfc4514_string()


def test_representation_shows_no_key(platform: DevPlatform) -> None:
    assert repr(platform) == "DevPlatform()"
