import json

import pytest
from typer.testing import CliRunner

from oracle.clients.edge.cli import app, connect
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.signer import measurement


@pytest.fixture
def environment(tmp_path, monkeypatch, deployment):
    (tmp_path / "deployment.json").write_text(deployment.model_dump_json())
    (tmp_path / "hub.key").write_text("rapha_key\n")
    values = {
        "NODE_ID": "3",
        "ORACLE_URL": "http://127.0.0.1:1",
        "HUB_URL": "http://127.0.0.1:1",
        "HUB_KEY_FILE": tmp_path / "hub.key",
        "DEPLOYMENT_FILE": tmp_path / "deployment.json",
        "STATE_DIR": tmp_path / "state",
        "PLATFORM_DIR": tmp_path / "platform",
        "PRICE_PER_RECORD": "1000",
        "PRICE_PER_EPOCH": "500",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"RAPHA_EDGE_{name}", str(value))
    return monkeypatch


def invoke(*arguments):
    return CliRunner().invoke(app, arguments)


def test_measurement_is_printed_as_hex():
    assert invoke("measurement").stdout.strip() == "0x" + measurement().hex()
    answer = json.loads(invoke("measurement", "--json").stdout)
    assert answer == {"measurement": "0x" + measurement().hex()}


def test_profile_is_what_the_node_would_publish(environment):
    profile = json.loads(invoke("profile", "--json").stdout)
    assert profile["node_id"] == 3
    assert profile["record_count"] == 569
    assert profile["price_per_record"] == 1000
    assert len(profile["schema"]) == 31
    assert "record_count: 569" in invoke("profile").stdout


def test_profile_keeps_its_digest_over_runs(environment):
    digests = {json.loads(invoke("profile", "--json").stdout)["dataset_digest"] for _ in range(2)}
    assert len(digests) == 1


def test_a_missing_setting_is_named_and_ends_with_2(environment):
    environment.delenv("RAPHA_EDGE_HUB_URL")
    result = invoke("run")
    assert result.exit_code == 2
    assert "RAPHA_EDGE_HUB_URL: Field required" in result.stderr


def test_a_limit_out_of_range_is_named(environment):
    environment.setenv("RAPHA_EDGE_LIMITS__WALL_SECONDS", "0")
    result = invoke("profile")
    assert result.exit_code == 2
    assert "RAPHA_EDGE_LIMITS__WALL_SECONDS" in result.stderr


def test_a_real_chain_is_refused_by_name(environment, tmp_path, deployment):
    real = deployment.model_copy(update={"chain_id": 137})
    (tmp_path / "deployment.json").write_text(real.model_dump_json())
    result = invoke("run")
    assert result.exit_code == 1
    assert not (tmp_path / "state" / "enclave").exists()


def test_an_empty_hub_key_ends_the_node(environment, tmp_path):
    (tmp_path / "hub.key").write_text("\n")
    assert invoke("run").exit_code == 1


def test_the_oracle_is_asked_with_the_nodes_api_key_which_nothing_shows(environment):
    assert "authorization" not in connect(EdgeSettings())._http.headers
    environment.setenv("RAPHA_EDGE_ORACLE_API_KEY", "rapha_of_the_node")
    settings = EdgeSettings()
    assert connect(settings)._http.headers["authorization"] == "Bearer rapha_of_the_node"
    assert "rapha_of_the_node" not in f"{settings!r} {settings.model_dump_json()}"
