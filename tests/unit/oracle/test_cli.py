"""The command line: exit codes, JSON, and errors without a traceback."""

import json
from pathlib import Path

import pytest

from oracle import cli
from oracle.store.database import Store


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
    url = f"sqlite:///{tmp_path / 'oracle.db'}"
    monkeypatch.setenv("RAPHA_ORACLE_DATABASE_URL", url)
    assert run(monkeypatch, "migrate", "--json") == 0
    revision = Store(url).revision()
    assert revision is not None
    assert json.loads(capsys.readouterr().out) == {"revision": revision}
