"""The command line: exit codes, JSON, and errors without a traceback."""

import json
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from oracle import cli
from oracle.store.database import MIGRATIONS, Store
from oracle.store.tpm import TpmKeyRow
from settlement.bls import BlsMember, check_member
from settlement.committee import MemberKey, creation


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["rapha-oracle", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_missing_settings_are_named_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "migrate") == 1
    failure = json.loads(capsys.readouterr().err)
    assert failure["code"] == "ConfigurationInvalid"
    assert "RAPHA_ORACLE_RPC_URL: Field required" in failure["detail"]


def test_migrate_prints_the_revision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DEPLOYMENT", "COMMITTEE_KEY", "PEER_TOKEN", "COLLATERAL"):
        monkeypatch.setenv(f"RAPHA_ORACLE_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("RAPHA_ORACLE_RPC_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RAPHA_ORACLE_DATABASE_URL", f"sqlite:///{tmp_path / 'oracle.db'}")
    assert run(monkeypatch, "migrate", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "revision": ScriptDirectory(str(MIGRATIONS)).get_current_head()
    }


def test_forget_tpm_lets_a_node_have_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DEPLOYMENT", "COMMITTEE_KEY", "PEER_TOKEN", "COLLATERAL"):
        monkeypatch.setenv(f"RAPHA_ORACLE_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("RAPHA_ORACLE_RPC_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RAPHA_ORACLE_DATABASE_URL", f"sqlite:///{tmp_path / 'oracle.db'}")
    store = Store(f"sqlite:///{tmp_path / 'oracle.db'}")
    store.migrate()
    key = {"ak_name": b"ak", "ek_certificate": b"c", "ek_key": b"k", "enrolled_at": 1}
    with store.write() as session:
        session.add(TpmKeyRow(node_id=7, valid_until=2, **key))
    for code, forgotten in ((0, True), (1, False)):
        assert run(monkeypatch, "forget-tpm", "7", "--json") == code
        assert json.loads(capsys.readouterr().out) == {"node_id": 7, "forgotten": forgotten}


def test_member_shows_what_a_new_committee_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DEPLOYMENT", "COMMITTEE_KEY", "PEER_TOKEN", "COLLATERAL"):
        monkeypatch.setenv(f"RAPHA_ORACLE_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("RAPHA_ORACLE_RPC_URL", "http://127.0.0.1:1")
    secret = bytes(range(1, 33))
    (tmp_path / "COMMITTEE_KEY").write_text(secret.hex())
    assert run(monkeypatch, "member", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    member = BlsMember.model_validate(found["bls"])
    check_member(member)
    assert found["address"] == MemberKey(secret).address
    assert member.public == MemberKey(secret).bls.public
    name, (members, threshold) = creation([member], 1)
    assert (name, len(members), threshold) == ("BlsCommittee", 1, 1)
    assert run(monkeypatch, "member") == 0
    shown = capsys.readouterr().out
    assert found["bls"]["proof"] in shown
    assert secret.hex() not in shown
