"""Every base rule, by what breaks it alone, on two engines; and each one missed when it is gone."""

import json
import re

import pytest
import regorus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longrun import LONG
from unit.edge.policy.documents import (
    RELEASE_CASES,
    TENSORS,
    TRAINING_CASES,
    changed,
    encoded,
    release,
    tensor,
    training,
)

from oracle.clients.edge.policy import decision as decision_module
from oracle.clients.edge.policy.decision import decide
from oracle.clients.edge.policy.digest import base_rules
from oracle.clients.edge.policy.hospital import HospitalRules
from oracle.clients.edge.policy.input import parse_input

NONE = HospitalRules.none()
MAKE = {"training": training, "release": release}
CASES = [
    (gate, rule, changes, parameters)
    for gate, cases in (("training", TRAINING_CASES), ("release", RELEASE_CASES))
    for rule, (changes, parameters) in cases.items()
]
CASE_IDS = [f"{gate}-{rule}" for gate, rule, *_ in CASES]
_RULE = re.compile(r"^deny contains \{\"rule\": \"(\w+)\".*?^\}\n", re.DOTALL | re.MULTILINE)


def second_engine(rules, document) -> dict:
    """The decision by regorus."""
    engine = regorus.Engine()
    for name, source in rules.items():
        engine.add_policy(name, source.decode())
    engine.set_input_json(json.dumps(document))
    return json.loads(engine.eval_rule_as_json(f"data.rapha.{document['gate']}.decision"))


def without_order(decision) -> tuple[bool, list[str]]:
    return decision["allow"], sorted(
        json.dumps(entry, sort_keys=True) for entry in decision["deny"]
    )


@pytest.mark.parametrize("gate", ["training", "release"])
def test_a_document_on_all_bounds_passes(engine, gate):
    assert decide(engine, encoded(MAKE[gate]()), NONE).denials == ()


@pytest.mark.parametrize(("gate", "rule", "changes", "parameters"), CASES, ids=CASE_IDS)
def test_each_rule_denies_what_breaks_it_alone(engine, gate, rule, changes, parameters):
    decision = decide(engine, encoded(MAKE[gate](*changes)), NONE)
    assert [(d.rule, d.source, d.parameters) for d in decision.denials] == [
        (rule, "base", parameters)
    ]


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((100,), True),
        ((3, 80), True),
        ((20, 2, 2), True),
        ((100 * 7,), True),
        ((80 * 8,), True),
        ((10, 14), True),  # 20 records of 7 columns
        ((), False),
        ((0,), False),
        ((99, 2), False),
    ],
)
def test_a_tensor_is_of_record_shape_along_any_axis_or_flattened(engine, shape, found):
    document = changed(
        release(("policy.max_output_bytes", 10_000)),
        ("job.outputs.tensors", [tensor(shape=shape)]),
        ("output.tensors", [tensor(shape=shape)]),
    )
    expected = {"record_shape"} if found else set()
    assert decide(engine, encoded(document), NONE).rules == expected


def test_an_allow_list_of_any_passes_other_digests(engine):
    lists = {"any": True, "digests": []}
    document = training(("hospital.bundles", lists), ("hospital.images", lists))
    assert decide(engine, encoded(document), NONE).allowed


def test_without_a_demand_no_accountant_is_needed(engine):
    for make in (training, release):
        document = make(
            ("privacy.demanded", False),
            ("privacy.accounted", False),
            ("privacy.job_epsilon", 2**40),
        )
        assert decide(engine, encoded(document), NONE).allowed


def test_several_broken_rules_are_all_named(engine):
    document = training(("job.epochs", 11), ("job.network", "host"), ("policy.min_records", 101))
    assert decide(engine, encoded(document), NONE).rules == {"epochs", "network", "min_records"}


def test_every_rule_has_a_case_that_breaks_it():
    for gate, cases in (("training", TRAINING_CASES), ("release", RELEASE_CASES)):
        assert sorted(_RULE.findall(base_rules()[f"{gate}.rego"].decode())) == sorted(cases)
        assert base_rules()[f"{gate}.rego"].count(b"deny contains") == len(cases)


@pytest.mark.parametrize(("gate", "rule", "changes", "parameters"), CASES, ids=CASE_IDS)
def test_a_rule_that_is_taken_out_is_missed(engine, monkeypatch, gate, rule, changes, parameters):
    name = f"{gate}.rego"
    source = base_rules()[name].decode()
    (block,) = [m[0] for m in _RULE.finditer(source) if m[1] == rule]
    rules = {**base_rules(), name: source.replace(block, "").encode()}
    monkeypatch.setattr(decision_module, "base_rules", lambda: rules)
    assert decide(engine, encoded(MAKE[gate](*changes)), NONE).allowed


@pytest.mark.parametrize(("gate", "rule", "changes", "parameters"), CASES, ids=CASE_IDS)
def test_a_second_engine_denies_the_same(engine, gate, rule, changes, parameters):
    document = MAKE[gate](*changes)
    assert second_engine(base_rules(), document) == {
        "allow": False,
        "deny": [{"rule": rule, **parameters}],
    }


NUMBERS = st.sampled_from([0, 1, 2, 3, 10, 59, 60, 100, 1000, 2001, 2**31, 2**53 - 1])
NAMES = st.sampled_from(["weight", "bias", "w", "patiënt\u0007", '"}', "a.b[0]"])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 7, 8, 20, 80, 100]), max_size=4)
TENSOR = st.builds(
    lambda name, dtype, shape: {"name": name, "dtype": dtype, "shape": shape},
    NAMES,
    st.sampled_from(["F32", "F64", "U8", "BF16"]),
    SHAPES,
)


def numbers_of(value, path="") -> list[str]:
    """Dotted paths of all whole numbers of a document, those of tensors excepted."""
    if isinstance(value, dict):
        inner = [(f"{path}{key}", item) for key, item in value.items() if key != "tensors"]
        return [found for name, item in inner for found in numbers_of(item, f"{name}.")]
    return [path[:-1]] if type(value) is int else []


@st.composite
def documents(draw):
    document = draw(st.sampled_from([training, release]))()
    for path in draw(st.lists(st.sampled_from(numbers_of(document)), max_size=5, unique=True)):
        document = changed(document, (path, draw(NUMBERS)))
    unique = st.lists(TENSOR, max_size=3, unique_by=lambda t: t["name"])
    if draw(st.booleans()):
        document = changed(document, ("job.outputs.tensors", draw(unique)))
    if document["gate"] == "release" and draw(st.booleans()):
        document = changed(document, ("output.tensors", draw(st.lists(TENSOR, max_size=3))))
    return document


@settings(
    max_examples=2_000 if LONG else 50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(document=documents())
def test_two_engines_answer_the_same(engine, document):
    parse_input(encoded(document))
    query = f"data.rapha.{document['gate']}.decision"
    first = engine.query(base_rules(), query, document)
    assert without_order(first) == without_order(second_engine(base_rules(), document))


def test_the_documents_declare_what_they_give():
    assert release()["output"]["tensors"] == TENSORS == training()["job"]["outputs"]["tensors"]
