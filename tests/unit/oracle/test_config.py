"""What an oracle refuses to start with."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from endorsement import EndorsementCa
from eth_account import Account
from pydantic import ValidationError
from unit.oracle.bench import DEPLOYMENT, TOKEN, actor

from oracle.attestation.errors import DevelopmentRootRefused
from oracle.config import (
    OracleSettings,
    check_for_real_money,
    read_token,
)
from oracle.errors import ConfigurationRefused, SecretFileInvalid
from oracle.keyfiles import read_key, read_member_key
from oracle.service import build
from oracle.tpm import read_roots
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


def test_several_keys_and_endpoints_come_from_lists(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, store, password = (tmp_path / name for name in ("other", "keystore", "password"))
    other.write_text(actor("second").key.hex())
    document = Account.encrypt(actor("third").key, "word", kdf="pbkdf2", iterations=2)
    store.write_text(json.dumps(document))
    password.write_text("word")
    values = {
        **files,
        "rpc_url": "http://127.0.0.1:1/key, http://127.0.0.1:2",
        "relayer_key_files": f"{other}",
        "relayer_keystore_files": f"{store}",
        "relayer_password_file": f"{password}",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"RAPHA_ORACLE_{name.upper()}", str(value))
    service = build(OracleSettings())
    assert service.relayer is not None
    found = [sender.address for sender in service.relayer.keyring.senders]
    assert found == [actor(name).address for name in ("relayer", "second", "third")]
    assert service.endpoints is not None
    assert [state.name for state in service.endpoints.states()] == ["127.0.0.1:1", "127.0.0.1:2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relayer_keystore_files": "a"}, "keystores need relayer_password_file"),
        ({"signer_url": "http://signer.test"}, "signer_url and signer_addresses go together"),
        ({"rpc_url": " , "}, "rpc_url names no endpoint"),
        ({"rpc_agree": 2}, "rpc_agree is more than there are endpoints"),
    ],
)
def test_keys_and_endpoints_that_do_not_fit_together_are_refused(
    files: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        OracleSettings(**{**files, **changes})


def test_one_relaying_key_twice_is_refused(files: dict[str, Any]) -> None:
    twice = {**files, "relayer_key_files": (files["relayer_key_file"],)}
    with pytest.raises(ConfigurationRefused, match="must differ"):
        build(OracleSettings(**twice))


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
    member = read_member_key(path)
    assert member.address == read_key(path).address
    assert member.bls.public == BlsSigner(bytes(actor("operator").key)).public
    path.write_text("00" * 32)
    with pytest.raises(SecretFileInvalid, match="does not hold a private key in hex"):
        read_member_key(path)


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


def tpm_files(files: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same settings, judging TPMs."""
    roots, policies = tmp_path / "roots.pem", tmp_path / "policies.json"
    root = EndorsementCa.create(1_800_000_000).root
    roots.write_bytes(root.public_bytes(Encoding.PEM))
    policy = {"model": "edge", "version": 1, "pcrs": {"8": ["0x" + "11" * 32]}}
    policies.write_text(json.dumps({"policies": [policy], "default_model": "edge"}))
    return files | {"tpm_roots_file": roots, "tpm_policies_file": policies}


def test_an_oracle_that_judges_tpms_says_what_it_wants(
    files: dict[str, Any], tmp_path: Path
) -> None:
    service = build(OracleSettings(**tpm_files(files, tmp_path), tpm_required=True))
    wanted = service.operator.wanted_tpm(1)
    assert wanted is not None
    assert (wanted.required, wanted.selection) == (True, "sha256:8")


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        (("tpm_policies_file",), "tpm_roots_file and tpm_policies_file together"),
        (("tpm_roots_file",), "tpm_roots_file and tpm_policies_file together"),
        (("tpm_roots_file", "tpm_policies_file"), "tpm_required needs"),
    ],
)
def test_tpms_are_judged_by_roots_and_policies_or_not_at_all(
    files: dict[str, Any], tmp_path: Path, missing: tuple[str, ...], fault: str
) -> None:
    given = tpm_files(files, tmp_path)
    for name in missing:
        del given[name]
    with pytest.raises(ValidationError, match=fault):
        OracleSettings(**given, tpm_required=True)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("tpm_roots_file", b"", "does not hold PEM certificates"),
        ("tpm_policies_file", b"{}", "policies: Field required"),
        (
            "tpm_policies_file",
            b'{"policies": [{"model": "m", "version": 1, "pcrs": {"8": ["0x'
            + b"11" * 32
            + b'"]}}], "nodes": {"1": {"model": "other"}}}',
            "no PCR policy for node model 'other'",
        ),
    ],
)
def test_files_of_the_tpms_are_refused_by_name(
    files: dict[str, Any], tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    given = tpm_files(files, tmp_path)
    given[name].write_bytes(content)
    with pytest.raises(ConfigurationRefused, match=fault) as caught:
        build(OracleSettings(**given))
    assert str(given[name]) in str(caught.value)
    given[name].unlink()
    with pytest.raises(ConfigurationRefused, match="No such file"):
        build(OracleSettings(**given))


def test_revoked_tpms_come_from_the_environment(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tpm_files(files, tmp_path).items():
        monkeypatch.setenv(f"RAPHA_ORACLE_{name.upper()}", str(value))
    monkeypatch.setenv("RAPHA_ORACLE_TPM_REVOKED_KEYS", json.dumps(["0x" + "11" * 32]))
    settings = OracleSettings()
    assert settings.tpm_revoked_keys == frozenset([b"\x11" * 32])
    assert settings.tpm_roots_file is not None
    assert read_roots(settings.tpm_roots_file, settings.tpm_revoked_keys).is_revoked(b"\x11" * 32)
