"""What the gates look at is the job, the dataset and the hospital, each in its place."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.errors import PolicyDenied
from oracle.clients.edge.loader import Counters
from oracle.clients.edge.policy.decision import decide
from oracle.clients.edge.policy.guard import holds_row
from oracle.clients.edge.policy.hospital import HospitalRules, HospitalRulesInvalid
from oracle.clients.edge.sandbox.limits import ChildLimits

WEIGHTS = {"weight": np.zeros(3, np.float32), "bias": np.zeros(1, np.float32)}
METRICS = {"loss": [0.5, 0.25], "holdout_accuracy": 0.97}
COUNTERS = Counters(40, 2, bytes(32))
OTHER = bytes([9] * 32)


def bundle_of(**changes) -> Bundle:
    manifest = {
        "framework": "jax",
        "entry_point": "train:train",
        "hyperparameters": {},
        "outputs": {"weight": {"dtype": "F32", "shape": [3]}},
    }
    manifest = {k: v for k, v in {**manifest, **changes}.items() if v is not None}
    return Bundle.from_files({"train.py": b"", "manifest.json": json.dumps(manifest).encode()})


def denied_at(gate, *arguments, **options) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as caught:
        gate(*arguments, **options)
    return caught.value


def test_a_job_within_the_bounds_passes_both_gates(make_gates):
    gates = make_gates()
    gates.training(wall_seconds=60)
    assert gates.progress({"loss": 0.5}, COUNTERS) == {"loss": 0.5}
    gates.release(save(WEIGHTS), METRICS, COUNTERS, steps=16)


@pytest.mark.parametrize(
    ("rule", "bundle", "options"),
    [
        ("framework", {}, {"frameworks": ("pytorch",)}),
        ("bundle", {}, {"bundles": (OTHER,)}),
        ("image", {}, {"images": (OTHER,)}),
        ("dataset", {}, {"datasets": (OTHER,)}),
        ("dataset_agreed", {}, {"dataset": OTHER}),
        ("min_cohort", {}, {"min_cohort": 41}),
        ("consent_purpose", {}, {"consent_purposes": ("care",)}),
        ("consent_until", {}, {"consent_until": 1999}),
        ("retention", {}, {"retention_until": 1999}),
        ("epochs", {}, {"epochs": 3, "max_epochs": 2}),
        ("wall_seconds", {}, {"max_wall_seconds": 59}),
        ("cpu_seconds", {}, {"limits": ChildLimits(cpu_seconds=2), "max_cpu_seconds": 1}),
        (
            "memory_bytes",
            {},
            {"limits": ChildLimits(memory_bytes=2), "max_memory_bytes": 1},
        ),
        ("output_limit", {}, {"output_limit": 99_999}),
        ("network", {"network": "host"}, {}),
        ("outputs_declared", {"outputs": None}, {}),
        ("declared_none", {"outputs": {}}, {}),
        ("declared_dtype", {"outputs": {"w": {"dtype": "F64", "shape": [3]}}}, {}),
        ("declared_bytes", {"outputs": {"w": {"dtype": "F32", "shape": [25_001]}}}, {}),
        ("declared_shape", {"outputs": {"w": {"dtype": "F32", "shape": [3, 32]}}}, {}),
        ("privacy_accountant", {}, {"privacy": {"epsilon_micro": 1, "delta_femto": 0}}),
    ],
)
def test_each_fact_reaches_its_rule_before_training(make_gates, rule, bundle, options):
    gates = make_gates(bundle_of(**bundle), **options)
    assert denied_at(gates.training, wall_seconds=60).rule == rule


def test_no_gpu_is_let_in_unless_the_hospital_says_how_many(make_gates):
    error = denied_at(make_gates().training, wall_seconds=60, gpus=1)
    assert error.rule == "gpus"
    assert error.detail == "the job would get 1 GPUs, and the hospital lets it have 0 at most"
    make_gates(max_gpus=1).training(wall_seconds=60, gpus=1)
    assert denied_at(make_gates(max_gpus=1).training, wall_seconds=60, gpus=2).rule == "gpus"


def test_the_allow_lists_pass_what_they_name(make_gates, committed):
    bundle = bundle_of()
    make_gates(
        bundle, bundles=(bundle.digest,), images=(bytes([5] * 32),), datasets=(committed.digest,)
    ).training(wall_seconds=60)


@pytest.mark.parametrize(
    ("rule", "arguments", "options"),
    [
        ("min_records", {"records": 9}, {"min_cohort": 1}),
        ("min_cohort", {"records": 19}, {}),
        ("max_output_bytes", {"weights": {"weight": np.zeros(25_000, np.float32)}}, {}),
        ("no_tensors", {"weights": {}}, {}),
        ("undeclared_tensors", {"weights": {"patient17": np.zeros(3, np.float32)}}, {}),
        ("other_form", {"weights": {"weight": np.zeros(2, np.float32)}}, {}),
        ("allowed_dtypes", {"weights": {"weight": np.zeros(3, np.float64)}}, {}),
        (
            "record_shape",
            {
                "weights": {"weight": np.zeros((3, 8), np.float32)},
                "outputs": {"weight": {"dtype": "F32", "shape": [3, 8]}},
            },
            {},
        ),
        ("allowed_metrics", {"metrics": {"patient17": 1.0}}, {}),
        ("metric_length", {"metrics": {"loss": [0.1, 0.2, 0.3]}}, {}),
    ],
)
def test_each_fact_reaches_its_rule_before_release(make_gates, tmp_path, rule, arguments, options):
    counters = Counters(arguments.get("records", 40), 2, bytes(32))
    weights = save(arguments.get("weights", WEIGHTS))
    bundle = bundle_of(outputs=arguments["outputs"]) if "outputs" in arguments else None
    gates = make_gates(bundle, **options)
    error = denied_at(gates.release, weights, arguments.get("metrics", METRICS), counters, steps=16)
    record = json.loads((tmp_path / "job-1" / "release.input.json").read_bytes())
    assert record["output"]["records"] == counters.records
    assert error.rule == rule
    assert "patient17" not in str(error)


def test_weights_that_are_no_safetensors_are_denied_without_a_byte_of_them(make_gates):
    error = denied_at(make_gates().release, b"patient17", METRICS, COUNTERS, steps=16)
    assert (error.rule, error.detail) == (
        "well_formed",
        "the weights are not a strict safetensors file",
    )


def test_a_row_of_a_record_among_the_metrics_is_denied(make_gates, committed):
    row = [float(value) for value in committed.dataset.features[5]]
    error = denied_at(
        make_gates(epochs=3).release,
        save(WEIGHTS),
        {"loss": row},
        Counters(40, 3, bytes(32)),
        steps=16,
    )
    assert error.rule == "rows_in_metrics"


def test_metrics_are_not_shown_before_there_are_enough_records(make_gates):
    gates = make_gates()
    assert gates.progress({"loss": 0.5}, Counters(19, 0, bytes(32))) == {}
    assert gates.progress({"loss": 0.5}, Counters(20, 0, bytes(32))) == {"loss": 0.5}
    assert gates.progress({}, Counters(20, 0, bytes(32))) == {}


def test_a_metric_that_is_not_agreed_is_denied_while_the_job_runs(make_gates):
    for records in (1, 40):
        gates = make_gates()
        error = denied_at(gates.progress, {"patient17": 0.5}, Counters(records, 0, bytes(32)))
        assert error.rule == "allowed_metrics"
        assert "patient17" not in str(error)


def test_a_row_that_is_shown_value_by_value_is_denied_with_its_last(make_gates, committed):
    gates = make_gates(epochs=9)
    first, second, third = map(float, committed.dataset.features[5])
    assert gates.progress({"loss": first}, COUNTERS) == {"loss": first}
    assert gates.progress({"loss": first}, COUNTERS) == {"loss": first}
    assert gates.progress({"loss": second}, COUNTERS) == {"loss": second}
    assert denied_at(gates.progress, {"loss": third}, COUNTERS).rule == "rows_in_metrics"


def test_several_reasons_are_all_told(make_gates):
    error = denied_at(make_gates(epochs=3, max_epochs=2, consent_until=0).training, wall_seconds=60)
    assert error.rule == "consent_until"
    assert error.detail == (
        "the job may run until 1970-01-01 00:33 UTC, and the consent ends 1970-01-01 00:00 UTC;"
        " 3 epochs are more than the hospital's 2"
    )


def test_a_rule_of_the_hospitals_own_denies(make_gates, tmp_path):
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "own.rego").write_text(
        "package hospital.training\n\nimport rego.v1\n\n"
        'deny contains {"rule": "short", "have": input.job.epochs} if input.job.epochs > 1\n'
    )
    error = denied_at(make_gates(rules_dir=directory).training, wall_seconds=60)
    assert error.rule == "hospital.short"
    assert error.detail == "the rule short of the hospital's own denies it (have 2)"


def test_rules_that_cannot_be_read_stop_the_guard_at_once(make_gates, tmp_path):
    with pytest.raises(HospitalRulesInvalid):
        make_gates(rules_dir=tmp_path / "none")


def test_what_a_gate_was_asked_is_kept_and_judged_the_same_later(make_gates, engine, tmp_path):
    gates = make_gates(max_epochs=1)
    denied_at(gates.training, wall_seconds=60)
    data = (tmp_path / "job-1" / "training.input.json").read_bytes()
    assert decide(engine, data, HospitalRules.none()).rules == {"epochs"}
    assert decide(engine, data, HospitalRules.none(), gate="release").rules == {"input_refused"}


FEATURES = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0]], np.float32)
ROW = [float(value) for value in FEATURES[0]]


@pytest.mark.parametrize(
    ("series", "found"),
    [
        ({"a": ROW}, True),
        ({"a": [9.0, *ROW[1:5], 9.0]}, True),
        ({f"f{i}": [ROW[i]] for i in range(5)}, True),
        ({"d": [ROW[3]], "c": [ROW[2]], "b": [ROW[1]], "a": [ROW[0]]}, True),
        ({"x": [9.0, ROW[0]], "y": [9.0, ROW[1]], "z": [9.0, ROW[2]], "zz": [9.0, ROW[3]]}, True),
        ({"a": ROW[:3]}, False),
        ({"a": list(reversed(ROW))}, False),
        ({"a": [1.0] * 9}, False),  # a loss that stands still
        ({"a": [1e300] * 5}, False),
        ({}, False),
    ],
)
def test_four_neighbouring_values_of_a_record_are_a_row(series, found):
    assert holds_row(series, FEATURES) is found


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=8, max_size=8, unique=True),
    st.integers(0, 3),
    st.integers(0, 1),
)
def test_every_fragment_of_every_record_is_found(values, start, record):
    features = np.array(values, np.float32).reshape(2, 4)
    line = [7.0, *map(float, features[record]), 8.0][: 6 - start]
    assert holds_row({"a": line}, features) is (start < 2)


def test_a_single_column_is_never_a_row():
    assert not holds_row({"a": [0.5]}, np.array([[0.5]], np.float32))
