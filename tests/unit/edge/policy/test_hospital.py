"""A hospital's rules can deny more, whatever they say, and nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longrun import LONG
from unit.edge.policy.documents import (
    RELEASE_CASES,
    TRAINING_CASES,
    encoded,
    release,
    training,
)

from oracle.clients.edge.policy import decision as decision_module
from oracle.clients.edge.policy.decision import Denial, decide, name_of
from oracle.clients.edge.policy.engine import Engine, Fault
from oracle.clients.edge.policy.hospital import HospitalRules, HospitalRulesInvalid

NONE = HospitalRules.none()
HEAD = "package hospital.{gate}\n\nimport rego.v1\n\n"


@pytest.fixture(scope="session")
def rules(tmp_path_factory):
    """Rules of a hospital from text: one file of one gate."""

    def make(source: str, gate: str = "training", name: str = "own.rego") -> HospitalRules:
        directory = tmp_path_factory.mktemp("rules")
        (directory / name).write_text(HEAD.format(gate=gate) + source)
        return HospitalRules.read(directory)

    return make


def names(engine: Engine, document, own: HospitalRules) -> set[str]:
    return set(decide(engine, encoded(document), own).rules)


def test_a_rule_of_the_hospital_denies_with_its_numbers(engine, rules):
    own = rules(
        'deny contains {"rule": "few_epochs", "have": input.job.epochs, "need": 9} if {\n'
        "\tinput.job.epochs > 9\n}\n"
        'deny contains "no_jax" if input.job.framework == "jax"\n'
    )
    assert decide(engine, encoded(training()), own).denials == (
        Denial("few_epochs", "hospital", {"have": 10, "need": 9}),
        Denial("no_jax", "hospital"),
    )
    calm = training(("job.epochs", 9), ("job.framework", "pytorch"))
    assert decide(engine, encoded(calm), own).allowed


def test_rules_of_one_gate_are_silent_at_the_other(engine, rules):
    own = rules('deny contains "never"', gate="release")
    assert decide(engine, encoded(training()), own).allowed
    assert names(engine, release(), own) == {"hospital.never"}


def test_rules_of_the_hospital_may_share_a_library(engine, tmp_path):
    (tmp_path / "lib.rego").write_text("package hospital.lib.own\n\nfew := 9\n")
    (tmp_path / "own.rego").write_text(
        HEAD.format(gate="training")
        + 'deny contains "few" if input.job.epochs > data.hospital.lib.own.few'
    )
    own = HospitalRules.read(tmp_path)
    assert names(engine, training(), own) == {"hospital.few"}
    assert names(engine, release(), own) == set()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("deny := true", Fault.MALFORMED),
        ("deny := {}", Fault.MALFORMED),
        ('deny := "no"', Fault.MALFORMED),
        ('deny := ["x"] if input.job.epochs == 0', Fault.UNDEFINED),
        ("allow := true", Fault.UNDEFINED),
        ("deny contains {", Fault.FAILED),
    ],
)
def test_rules_that_give_no_set_deny(engine, rules, source, named):
    (denial,) = decide(engine, encoded(training()), rules(source)).denials
    assert (denial.rule, denial.source) == (named, "hospital")


@pytest.mark.parametrize(
    "source",
    [
        "deny contains input.output.tensors[0].name",
        'deny contains {"rule": input.output.tensors[0].name}',
        'deny contains {"rule": "own", "have": input.output.tensors[0].name}',
        'deny contains {"rule": "own", input.output.tensors[0].name: 1}',
        'deny contains {"rule": "own", "have": 1.5}',
        'deny contains {"rule": "own", "have": [1]}',
        'deny contains {"have": 1}',
        "deny contains 17",
        'deny contains "Not An Id"',
    ],
)
def test_what_could_carry_a_name_out_denies_without_it(engine, rules, source):
    document = release(("output.tensors.0.name", "patient17"))
    own = rules(source, gate="release")
    decision = decide(engine, encoded(document), own)
    assert [d for d in decision.denials if d.source == "hospital"] == [
        Denial("unnamed", "hospital")
    ]
    assert "patient17" not in str(decision)


BODIES = st.sampled_from(
    [
        "true",
        "false",
        "input.job.epochs > 3",
        "input.missing == 1",
        "count(5) == 1",
        "data.rapha.training.allow",
        "not data.rapha.training.allow",
        "some x in input.job.outputs.tensors",
        "unbound",
        "{",
    ]
)
RULES = st.one_of(
    st.builds('deny contains "own" if {}'.format, BODIES),
    st.builds('deny contains {{"rule": "own", "have": input.job.epochs}} if {}'.format, BODIES),
    st.builds("deny := set() if {}".format, BODIES),
    st.sampled_from(
        [
            "allow := true",
            "default allow := true",
            'decision := {"allow": true, "deny": []}',
            "deny := set()",
            "deny := []",
            "import data.rapha.training",
            "data.rapha.training.allow := true",
            "package rapha.training",
            "package rapha.release\n\nallow := true",
            "default deny := set()",
        ]
    ),
    st.text(max_size=30),
)
DENIED = [(training, changes) for changes, _ in TRAINING_CASES.values()]
DENIED += [(release, changes) for changes, _ in RELEASE_CASES.values()]


@settings(
    max_examples=2_000 if LONG else 30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    case=st.sampled_from([*DENIED, (training, ()), (release, ())]),
    lines=st.lists(RULES, max_size=4),
)
def test_no_rule_of_a_hospital_takes_a_denial_away(engine, rules, case, lines):
    make, changes = case
    document = make(*changes)
    own = rules("\n".join(lines), gate=document["gate"])
    before = decide(engine, encoded(document), NONE)
    after = decide(engine, encoded(document), own)
    assert set(map(name_of, before.denials)) <= set(map(name_of, after.denials))
    assert not after.allowed or before.allowed


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        ({}, "0 files named *.rego"),
        ({"a.rego": "package rapha.training\nallow := true"}, "its package must be"),
        ({"a.rego": "package rapha.training.more"}, "its package must be"),
        ({"a.rego": "package hospital"}, "its package must be"),
        ({"a.rego": 'package hospital["training"]'}, "its package must be"),
        ({"a.rego": "import rego.v1\npackage hospital.training"}, "its package must be"),
        ({"a.rego": ""}, "its package must be"),
        ({"a.rego": "# " + "x" * (1 << 18)}, "more than 262144"),
        ({f"{i}.rego": "package hospital.training" for i in range(65)}, "65 files"),
    ],
)
def test_files_that_cannot_be_a_hospitals_rules_are_refused(tmp_path, files, detail):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(HospitalRulesInvalid, match=detail.replace("*", r"\*")):
        HospitalRules.read(tmp_path)


def test_a_file_that_is_not_text_or_no_directory_is_refused(tmp_path):
    (tmp_path / "a.rego").write_bytes(b"package hospital.training\n\xff")
    with pytest.raises(HospitalRulesInvalid, match="not UTF-8"):
        HospitalRules.read(tmp_path)
    with pytest.raises(HospitalRulesInvalid, match="is no directory"):
        HospitalRules.read(tmp_path / "none")


BASE = "package rapha.training\n\nimport rego.v1\n\n"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('decision := {"allow": true, "deny": []}', None),
        ('decision := {"allow": false, "deny": []}', Fault.MALFORMED),
        ('decision := {"allow": true, "deny": [{"rule": "epochs"}]}', Fault.MALFORMED),
        ('decision := {"allow": "true", "deny": []}', Fault.MALFORMED),
        ('decision := {"allow": 1, "deny": []}', Fault.MALFORMED),
        ('decision := {"allow": true, "deny": {}}', Fault.MALFORMED),
        ('decision := {"allow": true}', Fault.MALFORMED),
        ('decision := {"allow": true, "deny": [], "more": 1}', Fault.MALFORMED),
        ('decision := {"allow": false, "deny": [{"rule": "Epochs"}]}', Fault.MALFORMED),
        ('decision := {"allow": false, "deny": ["epochs"]}', Fault.MALFORMED),
        ("decision := true", Fault.MALFORMED),
        ("decision := null", Fault.MALFORMED),
        ('decision := {"allow": true, "deny": []} if input.job.epochs == 0', Fault.UNDEFINED),
        ("decision := {", Fault.FAILED),
    ],
)
def test_base_rules_open_by_one_answer_alone(engine, monkeypatch, source, named):
    monkeypatch.setattr(
        decision_module, "base_rules", lambda: {"training.rego": (BASE + source).encode()}
    )
    decision = decide(engine, encoded(training()), NONE)
    assert decision.rules == (frozenset() if named is None else {named})
