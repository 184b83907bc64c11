import json

import pytest
from typer.testing import CliRunner

from oracle.clients.edge.cli import app
from oracle.clients.edge.signer import measurement
from oracle.commands.rapha import app as rapha


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


def audit(*arguments):
    return CliRunner().invoke(rapha, ["audit", *arguments])


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


def test_a_dataset_is_shown_and_challenged_from_end_to_end(environment, tmp_path):
    rows = "".join(f"s{n},{n},{n % 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_text("study_id,age,ill\n" + rows)
    (tmp_path / "dataset.toml").write_text(
        'modality = "tabular/test"\ndeduplicate = true\n[source]\nkind = "csv"\n'
        'path = "t.csv"\nid = "study_id"\nlabel = "ill"\ncolumns = ["age"]\n'
    )
    environment.setenv("RAPHA_EDGE_DATASET_FILE", str(tmp_path / "dataset.toml"))
    shown = json.loads(invoke("dataset", "show", "--json").stdout)
    assert shown["left_out"] == 0
    profile = shown["profile"]
    assert (profile["record_count"], profile["deduplicate"]) == (60, True)
    assert profile["bands"] == [
        {"name": f"label:{label}", "at_least": 20, "at_most": 39} for label in (0, 1)
    ]
    assert "label:0: 20 to 39 records" in invoke("dataset", "show").stdout

    files = [str(tmp_path / name) for name in ("profile.json", "challenge.json", "answer.json")]
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    made = audit("challenge", files[0], "--leaves", "9", "--out", files[1])
    assert made.exit_code == 0
    assert "9 leaves of 60 hit at least one of 6 invented records (10%)" in made.stdout
    answered = invoke("dataset", "answer", files[1], "--out", files[2])
    assert answered.exit_code == 0, answered.stderr
    assert (tmp_path / "answer.json").stat().st_mode & 0o777 == 0o600
    checked = audit("check", *files)
    assert checked.exit_code == 0
    assert "9 of 9 leaves opened" in checked.stdout

    answer = json.loads((tmp_path / "answer.json").read_text())
    answer["openings"][3]["record"] = "0x00"
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    checked = audit("check", *files, "--json")
    assert checked.exit_code == 1
    faults = [found["fault"] for found in json.loads(checked.stdout)["findings"]]
    assert faults.count("it is not under the published root") == 1
    assert faults.count(None) == 8


def test_a_profile_that_breaks_its_digest_cannot_be_challenged(environment, tmp_path):
    profile = json.loads(invoke("profile", "--json").stdout)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**profile, "record_count": 570}))
    made = audit("challenge", str(path), "--out", str(tmp_path / "challenge.json"))
    assert made.exit_code == 2
    assert "dataset_digest is not the digest" in made.stderr
    assert not (tmp_path / "challenge.json").exists()


@pytest.mark.parametrize("content", [None, "{}", "[]"])
def test_what_is_no_challenge_is_not_answered(environment, tmp_path, content):
    path = tmp_path / "challenge.json"
    if content is not None:
        path.write_text(content)
    result = invoke("dataset", "answer", str(path), "--out", str(tmp_path / "answer.json"))
    assert result.exit_code == 1
    assert "ChallengeInvalid" in result.stderr
    assert not (tmp_path / "answer.json").exists()


def test_a_broken_dataset_file_is_named(environment, tmp_path):
    environment.setenv("RAPHA_EDGE_DATASET_FILE", str(tmp_path / "none.toml"))
    result = invoke("dataset", "show")
    assert result.exit_code == 1
    assert "SourceInvalid" in result.stderr
    assert "none.toml: No such file" in result.stderr
