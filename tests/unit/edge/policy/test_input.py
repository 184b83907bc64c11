"""A document with a field too few, too many or mistyped denies, wherever the field is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.edge.policy.documents import encoded, release, training

from oracle.clients.edge.policy.decision import INPUT_REFUSED, decide
from oracle.clients.edge.policy.hospital import HospitalRules
from oracle.clients.edge.policy.input import InputRefused, parse_input

DOCUMENTS = {"training": training(), "release": release()}


def places(value, path=()):
    """Every path in a document: of each field, and of each entry of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


PLACES = [(gate, path) for gate, document in DOCUMENTS.items() for path in places(document)]
FIELDS = [(gate, path) for gate, path in PLACES if isinstance(path[-1], str)]
OBJECTS = [(gate, ()) for gate in DOCUMENTS] + [
    (gate, path) for gate, path in PLACES if isinstance(path[-1], int)
]
KINDS = {dict: "object", list: "list", str: "text", bool: "bool", int: "number"}
OTHERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=70),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def at(document, path):
    for key in path:
        document = document[key]
    return document


def copy_of(gate):
    return json.loads(encoded(DOCUMENTS[gate]))


def refused(data: bytes) -> None:
    with pytest.raises(InputRefused):
        parse_input(data)


@given(st.sampled_from(FIELDS))
def test_a_missing_field_is_refused(place):
    gate, (*path, name) = place
    document = copy_of(gate)
    del at(document, path)[name]
    refused(encoded(document))


@given(st.sampled_from(PLACES), OTHERS)
def test_a_mistyped_value_is_refused(place, other):
    gate, (*path, key) = place
    document = copy_of(gate)
    before = at(document, path)[key]
    # A float is no number here, not even a whole one, and a bool is none either.
    if KINDS.get(type(other)) == KINDS[type(before)]:
        other = None
    at(document, path)[key] = other
    refused(encoded(document))


@given(
    st.sampled_from([(gate, path) for gate, path in [*FIELDS, *OBJECTS]]),
    st.text(min_size=1, max_size=20),
    OTHERS,
)
def test_a_field_too_many_is_refused(place, name, value):
    gate, path = place
    document = copy_of(gate)
    target = at(document, path)
    while not isinstance(target, dict):
        path = path[:-1]
        target = at(document, path)
    if name in target:
        name = f"{name}_"
    target[name] = value
    refused(encoded(document))


@settings(max_examples=25, deadline=None)
@given(place=st.sampled_from(FIELDS))
def test_the_gate_denies_what_the_form_refuses(engine, place):
    gate, (*path, name) = place
    document = copy_of(gate)
    del at(document, path)[name]
    (denial,) = decide(engine, encoded(document), HospitalRules.none()).denials
    assert (denial.rule, denial.source, denial.parameters) == (INPUT_REFUSED, "input", {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("job", "epochs"), -1),
        (("job", "epochs"), 2**53),  # the engine would take 2**64 - 1 for -1
        (("job", "epochs"), 2**64 - 1),
        (("job", "epochs"), 1.0),
        (("job", "epochs"), True),
        (("job", "framework"), "caffe"),
        (("job", "network"), "NONE"),
        (("job", "bundle_digest"), "0x11"),
        (("job", "bundle_digest"), "0x" + "AA" * 32),
        (("job", "outputs", "tensors", 0, "shape"), [2**21, 2**20]),
        (("job", "outputs", "tensors", 0, "name"), ""),
        (("gate",), "start"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(path, value):
    document = copy_of("training")
    at(document, path[:-1])[path[-1]] = value
    refused(encoded(document))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"[" * 100_000,
        b"\xff",
        encoded(training())[:-1] + b', "gate": "training"}',
        encoded(training()).replace(b'"epochs": 10', b'"epochs": 99, "epochs": 10', 1),
        encoded(training()) + b" " * (16 << 20),
    ],
)
def test_what_is_no_document_is_refused(data):
    refused(data)


def test_a_refusal_names_the_field_and_repeats_nothing_else():
    document = copy_of("release")
    document["output"]["tensors"][0]["patient17"] = 1
    document["output"]["tensors"][0]["dtype"] = "patient17"
    del document["output"]["records"]
    with pytest.raises(InputRefused) as caught:
        parse_input(encoded(document))
    assert caught.value.fields == (
        "release.output.records: missing",
        "release.output.tensors.0.dtype: literal_error",
        "release.output.tensors.0.(another field): extra_forbidden",
    )


@given(st.sampled_from(sorted(DOCUMENTS)))
def test_the_documents_themselves_pass(gate):
    assert parse_input(encoded(DOCUMENTS[gate])).gate == gate
