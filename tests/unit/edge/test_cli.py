import json
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner
from unit.edge.conftest import bundle_of

from oracle.clients.edge.audit import AuditLog
from oracle.clients.edge.cli import app, connect
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.signer import measurement
from oracle.commands.rapha import GROUP, register
from oracle.commands.rapha import app as rapha
from settlement.audit import Event


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
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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


def test_an_estimate_is_shown_and_ends_by_whether_it_fits(environment, tmp_path):
    bundle = bundle_of()
    (tmp_path / "bundle.zip").write_bytes(bundle.to_zip())
    bundle.write_to(tmp_path / "bundle")
    environment.setenv("RAPHA_EDGE_SANDBOX", "development")
    for place in ("bundle.zip", "bundle"):
        result = invoke("estimate", tmp_path / place, "--epochs", "3", "--json")
        found = json.loads(result.stdout)
        assert (result.exit_code, found["cost"]) == (0, 569 * 1000 + 3 * 500)
        assert (found["basis"], found["excesses"]) == ("declared", [])
    result = invoke("estimate", tmp_path / "bundle.zip", "--epochs", "3", "--budget", "570499")
    assert result.exit_code == 1
    assert "0.5705 USDC" in result.stdout
    assert "does not fit: 570500 USDC base units are needed" in result.stdout


def test_what_is_no_bundle_is_named(environment, tmp_path):
    environment.setenv("RAPHA_EDGE_SANDBOX", "development")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    for place, said in (("no.zip", "BundleRefused"), ("none.zip", "No such file")):
        result = invoke("estimate", tmp_path / place, "--epochs", "1")
        assert result.exit_code == 1
        assert said in result.stderr


def test_an_audit_log_is_exported_and_verified(environment, tmp_path):
    job, other = bytes([1] * 32), bytes([2] * 32)
    with AuditLog(tmp_path / "state/audit", lambda: 1) as log:
        for told in (job, other):
            log.append(Event.OFFERED, told, epochs=3)
    result = invoke("audit-export", "--job", "0x" + job.hex())
    assert result.exit_code == 0
    export = tmp_path / "export.jsonl"
    export.write_text(result.stdout)
    shown = verify(export, "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["open"]) == (0, 1)
    assert "whether more followed cannot be told" in verify(export).stdout
    log_file, key = tmp_path / "state/audit/log.jsonl", tmp_path / "state/audit/key"
    assert verify(log_file, "--key", key).exit_code == 0
    assert verify(log_file).exit_code == 1
    export.write_text(result.stdout.replace('"epochs":3', '"epochs":4'))
    shown = verify(export)
    assert (shown.exit_code, shown.stdout[:12]) == (1, "fail  line 1")
    (tmp_path / "state/audit/head.json").unlink()
    environment.setenv("RAPHA_EDGE_STATE_DIR", str(tmp_path / "none"))
    assert "AuditDamaged" in invoke("audit-export").stderr
    assert invoke("audit-export", "--job", "me").exit_code == 2


def verify(file, *options):
    return CliRunner().invoke(rapha, ["audit", "verify", str(file), *map(str, options)])


def test_what_cannot_be_verified_ends_with_2(tmp_path):
    result = verify(tmp_path / "none")
    assert result.exit_code == 2
    assert "is not an audit log" in result.stderr
    (tmp_path / "key").write_bytes(b"short")
    (tmp_path / "log").write_bytes(b"")
    assert (
        "does not hold the 32 bytes" in verify(tmp_path / "log", "--key", tmp_path / "key").stderr
    )


def test_rapha_has_the_commands_that_installed_parts_register():
    result = CliRunner().invoke(rapha, ["policy", "example", "training"])
    assert json.loads(result.stdout)["gate"] == "training"
    assert CliRunner().invoke(rapha, ["policy", "check", "/none"]).exit_code == 2
    assert "policy" in CliRunner().invoke(rapha, ["--help"]).stdout


def test_a_command_whose_part_is_not_installed_says_so(monkeypatch):
    register(EntryPoint("absent", "no_such_module:app", GROUP))
    result = CliRunner().invoke(rapha, ["absent", "--anything"])
    rapha.registered_commands.pop()
    assert result.exit_code == 2
    assert "needs the module no_such_module" in result.stderr


def test_the_oracle_is_asked_with_the_nodes_api_key_which_nothing_shows(environment):
    assert "authorization" not in connect(EdgeSettings())._http.headers
    environment.setenv("RAPHA_EDGE_ORACLE_API_KEY", "rapha_of_the_node")
    settings = EdgeSettings()
    assert connect(settings)._http.headers["authorization"] == "Bearer rapha_of_the_node"
    assert "rapha_of_the_node" not in f"{settings!r} {settings.model_dump_json()}"


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
