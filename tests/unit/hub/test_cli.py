"""The command line puts a hub together from RAPHA_HUB_*, or says what is wrong."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from oracle.clients.hub.cli import app, build, connect
from oracle.clients.hub.config import HubSettings
from settlement.deployment import Deployment

KEY = "k" * 43


@pytest.fixture
def environment(
    tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    files = {
        "deployment_file": tmp_path / "deployment.json",
        "keys_file": tmp_path / "keys.json",
        "hash_key_file": tmp_path / "hash.key",
        "artifacts_dir": tmp_path / "artifacts",
    }
    files["deployment_file"].write_text(deployment.model_dump_json())
    files["keys_file"].write_text(json.dumps({"developers": {"acme": KEY}, "nodes": {}}))
    for name, path in files.items():
        monkeypatch.setenv(f"RAPHA_HUB_{name.upper()}", str(path))
    monkeypatch.setenv("RAPHA_HUB_DATABASE_URL", f"sqlite:///{tmp_path}/hub.sqlite")
    monkeypatch.setenv("RAPHA_HUB_ORACLE_URL", "http://127.0.0.1:9")
    return files


def test_hub_is_built_from_the_environment(environment: dict[str, Path]) -> None:
    with TestClient(build(HubSettings())) as http:
        job = "/v1/jobs/0x" + "00" * 32
        answer = http.get(job, headers={"authorization": f"Bearer {KEY}"})
        assert answer.json()["code"] == "JobUnknown"
    assert environment["hash_key_file"].exists()
    assert environment["artifacts_dir"].is_dir()


@pytest.mark.parametrize("name", ["keys_file", "deployment_file"])
def test_missing_file_is_named_and_ends_with_2(environment: dict[str, Path], name: str) -> None:
    environment[name].unlink()
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    line = json.loads(result.stderr.strip().splitlines()[-1])
    assert line["event"] == "configuration refused"
    assert str(environment[name]) in line["detail"]


def test_missing_setting_is_named_and_ends_with_2(
    environment: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAPHA_HUB_ORACLE_URL")
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    line = json.loads(result.stderr.strip().splitlines()[-1])
    assert line["faults"] == ["oracle_url: Field required"]


def test_the_oracle_is_asked_with_the_hubs_api_key_which_nothing_shows(
    environment: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "authorization" not in connect(HubSettings())._http.headers
    monkeypatch.setenv("RAPHA_HUB_ORACLE_API_KEY", "rapha_of_the_hub")
    settings = HubSettings()
    assert connect(settings)._http.headers["authorization"] == "Bearer rapha_of_the_hub"
    assert "rapha_of_the_hub" not in f"{settings!r} {settings.model_dump_json()}"
