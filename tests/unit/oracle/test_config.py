"""What an oracle refuses to start with."""

from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from pydantic import ValidationError
from unit.oracle.bench import DEPLOYMENT, TOKEN, actor

from oracle.attestation.errors import DevelopmentRootRefused
from oracle.config import (
    OracleSettings,
    check_for_real_money,
    read_bls_signer,
    read_key,
    read_token,
)
from oracle.errors import ConfigurationRefused, SecretFileInvalid
from oracle.service import build
from settlement.bls import BlsSigner
from settlement.deployment import REAL_CHAINS
from settlement.signer import KNOWN_ACCOUNTS, KnownKeyRefused

ANVIL_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    paths = {name: tmp_path / name for name in ("committee", "relayer", "token", "deployment")}
    paths["committee"].write_text(actor("operator").key.hex())
    paths["relayer"].write_text(actor("relayer").key.hex() + "\n")
    paths["token"].write_text(TOKEN)
    paths["deployment"].write_text(DEPLOYMENT.model_dump_json())
    return {
        "rpc_url": "http://127.0.0.1:1",
        "database_url": f"sqlite:///{tmp_path / 'oracle.db'}",
        "deployment_file": paths["deployment"],
        "committee_key_file": paths["committee"],
        "relayer_key_file": paths["relayer"],
        "peer_token_file": paths["token"],
        "collateral_file": tmp_path / "collateral.json",
        "relay": True,
    }


def on_chain(files: dict[str, Any], chain_id: int) -> None:
    deployment = DEPLOYMENT.model_copy(update={"chain_id": chain_id})
    files["deployment_file"].write_text(deployment.model_dump_json())


def test_settings_come_from_the_environment(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in files.items():
        monkeypatch.setenv(f"RAPHA_ORACLE_{name.upper()}", str(value))
    monkeypatch.setenv("RAPHA_ORACLE_PEERS", "http://a:1, http://b:2")
    settings = OracleSettings()
    assert settings.peers == ("http://a:1", "http://b:2")
    assert settings.relay
    assert len(build(settings).peers) == 2


def test_relaying_needs_a_relayers_key(files: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="relaying needs relayer_key_file"):
        OracleSettings(**{**files, "relayer_key_file": None})


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
@pytest.mark.parametrize("which", ["committee_key_file", "relayer_key_file"])
def test_a_key_that_everybody_knows_is_refused_where_money_is_real(
    files: dict[str, Any], chain_id: int, which: str
) -> None:
    on_chain(files, chain_id)
    files[which].write_text(ANVIL_KEY)
    with pytest.raises(KnownKeyRefused):
        build(OracleSettings(**files))
    on_chain(files, 31337)
    build(OracleSettings(**files))


def test_the_known_accounts_are_those_of_the_well_known_mnemonic() -> None:
    Account.enable_unaudited_hdwallet_features()
    words = "test test test test test test test test test test test junk"
    derived = {
        Account.from_mnemonic(words, account_path=f"m/44'/60'/0'/0/{index}").address
        for index in range(10)
    }
    assert derived == KNOWN_ACCOUNTS


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_a_development_root_is_refused_where_money_is_real(
    files: dict[str, Any], chain_id: int, tmp_path: Path
) -> None:
    settings = OracleSettings(**files, dev_root_file=tmp_path / "root.der")
    with pytest.raises(DevelopmentRootRefused):
        check_for_real_money(settings, chain_id, [])


def test_one_key_for_vouching_and_relaying_is_refused(files: dict[str, Any]) -> None:
    files["relayer_key_file"].write_text(actor("operator").key.hex())
    with pytest.raises(ConfigurationRefused, match="must differ"):
        build(OracleSettings(**files))


@pytest.mark.parametrize("content", ["", "0x12", "not hex at all", "00" * 32])
def test_a_key_file_without_a_key_is_refused_without_showing_it(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(SecretFileInvalid) as caught:
        read_key(path)
    assert str(caught.value) == f"{path}: does not hold a private key in hex"
    assert caught.value.__cause__ is None


def test_a_key_file_serves_both_schemes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"0x{actor('operator').key.hex()}\n")
    signer = read_bls_signer(path)
    assert signer.address == read_key(path).address
    assert signer.public == BlsSigner(bytes(actor("operator").key)).public
    path.write_text("00" * 32)
    with pytest.raises(SecretFileInvalid, match="does not hold a private key in hex"):
        read_bls_signer(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFileInvalid, match="No such file"):
        read_key(tmp_path / "nothing")


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short")
    with pytest.raises(SecretFileInvalid):
        read_token(path)


def test_settings_do_not_show_the_endpoints_key(files: dict[str, Any]) -> None:
    settings = OracleSettings(**{**files, "rpc_url": "https://rpc.test/v2/secret-key"})
    assert "secret-key" not in repr(settings)
