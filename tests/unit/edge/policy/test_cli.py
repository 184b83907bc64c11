"""`policy check` judges a document as the node does, and says why."""

import json

import pytest
from typer.testing import CliRunner
from unit.edge.policy.documents import encoded, release, training

from oracle.clients.edge.cli import app
from oracle.clients.edge.policy.digest import base_rules, policy_digest
from settlement.hub.messages import OutputPolicy
from settlement.types import to_hex


def run(*arguments: object, stdin: bytes | None = None):
    return CliRunner().invoke(app, ["policy", *map(str, arguments)], input=stdin)


@pytest.fixture
def file_of(tmp_path):
    def write(document):
        path = tmp_path / "input.json"
        path.write_bytes(encoded(document))
        return path

    return write


def test_a_document_that_passes_is_allowed_with_code_0(file_of):
    for document in (training(), release()):
        result = run("check", file_of(document), "--gate", document["gate"])
        assert (result.exit_code, result.stdout) == (0, "allowed: no rule denies it\n")


def test_a_denial_is_explained_with_code_1(file_of):
    result = run("check", file_of(training(("job.epochs", 11), ("job.network", "host"))))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "denied by 2:",
        "  epochs: 11 epochs are more than the hospital's 10",
        "  network: the bundle asks for the network 'host', and training has none",
    ]


def test_json_carries_rule_words_and_numbers(file_of):
    result = run("check", file_of(training(("job.epochs", 11))), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "allowed": False,
        "denials": [
            {
                "rule": "epochs",
                "words": "11 epochs are more than the hospital's 10",
                "parameters": {"have": 11, "need": 10},
                "detail": "",
            }
        ],
    }
    result = run("check", file_of(training()), "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"allowed": True, "denials": []})


def test_a_document_of_the_other_gate_or_form_is_denied_with_what_is_wrong(file_of):
    result = run("check", file_of(training()), "--gate", "release")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "    it is of the gate before training"
    document = training()
    del document["job"]["epochs"]
    result = run("check", "-", stdin=encoded(document))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "    training.job.epochs: missing"


def test_the_hospitals_rules_are_asked_too(file_of, tmp_path):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "own.rego").write_text(
        'package hospital.training\n\nimport rego.v1\n\ndeny contains "never" if true\n'
    )
    result = run("check", file_of(training()), "--rules", rules)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        "  hospital.never: the rule never of the hospital's own denies it"
    ]
    (rules / "own.rego").write_text("package hospital.training\n\ndeny contains {\n")
    result = run("check", file_of(training()), "--rules", rules, "--json")
    (denial,) = json.loads(result.stdout)["denials"]
    assert (result.exit_code, denial["rule"]) == (1, "hospital.engine_failed")
    assert denial["detail"]


def test_what_cannot_be_judged_gives_code_2(file_of, tmp_path):
    result = run("check", tmp_path / "none.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{tmp_path}/none.json: No such file or directory\n"
    result = run("check", file_of(training()), "--rules", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{tmp_path}/none: is no directory\n"


@pytest.mark.parametrize("gate", ["training", "release"])
def test_the_example_of_a_gate_passes_it(gate):
    example = run("example", gate)
    assert example.exit_code == 0
    assert run("check", "-", "--gate", gate, stdin=example.stdout.encode()).exit_code == 0


def test_digest_prints_what_the_terms_carry(policy: OutputPolicy):
    result = run("digest", "-", "--json", stdin=policy.model_dump_json().encode())
    assert json.loads(result.stdout) == {"policy_digest": to_hex(policy_digest(policy))}
    result = run("digest", "-", stdin=b'{"min_records": 1}')
    assert result.exit_code == 2
    assert "is not an output policy: invalid max_output_bytes" in result.stderr
    assert json.loads(run("digest", "--json").stdout)["rules"] == {
        name: len(data) for name, data in base_rules().items()
    }
    assert run("digest").stdout.count(".rego: ") == 3
