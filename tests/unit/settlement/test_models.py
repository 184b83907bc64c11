"""Models are frozen, bounded, strict, and the same again after JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from settlement.models import (
    MAX_BUDGET,
    MAX_NODE_ID,
    Assignment,
    Authorization,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    Receipt,
    SignedReceipt,
    Sponsorship,
    Withdrawal,
    Work,
)
from settlement.types import ZERO_ADDRESS, Frozen

PAYER = "0x4A9883Fc9BCB1e2EaFb7A2326Eb4D52B3c5069b4"
TOP = 2**64 - 1
WORK: dict[str, Any] = {
    "model_digest": b"\x01" * 32,
    "dataset_digest": b"\x02" * 32,
    "policy_digest": b"\x03" * 32,
    "result_key_digest": b"\x04" * 32,
}
TERMS: dict[str, Any] = {
    "payer": PAYER,
    "node_id": 1,
    "price_per_record": 2,
    "price_per_epoch": 3,
    "budget": 4,
    "deadline": 5,
    "work": WORK,
    "salt": b"\x05" * 32,
}
RECEIPT: dict[str, Any] = {
    "job_id": b"\x06" * 32,
    "records": 7,
    "epochs": 8,
    "records_root": b"\x09" * 32,
    "output_digest": bytes(32),
    "complete": False,
}
REGISTRATION: dict[str, Any] = {
    "enclave_key": PAYER,
    "node_id": 1,
    "measurement": b"\x01" * 32,
    "attestation_digest": b"\x02" * 32,
    "encryption_key_digest": b"\x03" * 32,
    "expiry": 4,
    "epoch": 5,
}
ASSIGNMENT: dict[str, Any] = {"job_id": b"\x06" * 32, "node_id": 1, "epoch": 2}
DEPOSIT: dict[str, Any] = {"account": PAYER, "amount": 1, "salt": b"\x05" * 32}
WITHDRAWAL: dict[str, Any] = {"account": PAYER, "to": PAYER, "amount": 1, "nonce": 0, "deadline": 5}
MODELS: list[tuple[type[Frozen], dict[str, Any]]] = [
    (Work, WORK),
    (JobTerms, TERMS),
    (Receipt, RECEIPT),
    (SignedReceipt, {"receipt": RECEIPT, "signature": b"\x01" * 65}),
    (EnclaveRegistration, REGISTRATION),
    (Assignment, ASSIGNMENT),
    (Deposit, DEPOSIT),
    (Withdrawal, WITHDRAWAL),
    (OpenJobs, {"jobs": [TERMS]}),
    (Sponsorship, {"terms": TERMS, "sponsor": PAYER}),
    (Authorization, {"valid_after": 0, "valid_before": 1, "signature": b"\x01" * 65}),
]
each_model = pytest.mark.parametrize(
    ("model", "fields"), MODELS, ids=[m.__name__ for m, _ in MODELS]
)


def error_of(model: type[Frozen], fields: dict[str, Any]) -> tuple[tuple[Any, ...], str]:
    with pytest.raises(ValidationError) as caught:
        model(**fields)
    (error,) = caught.value.errors()
    return error["loc"], error["type"]


@each_model
def test_model_is_the_same_again_after_json(model: type[Frozen], fields: dict[str, Any]) -> None:
    made = model(**fields)
    assert model.model_validate_json(made.model_dump_json()) == made
    assert model.model_validate(made.model_dump()) == made
    assert "b'" not in json.dumps(made.model_dump(mode="json"))


@each_model
def test_unknown_field_is_refused(model: type[Frozen], fields: dict[str, Any]) -> None:
    assert error_of(model, {**fields, "extra": 1}) == (("extra",), "extra_forbidden")


@each_model
def test_missing_field_is_refused(model: type[Frozen], fields: dict[str, Any]) -> None:
    for name in fields:
        rest = {key: value for key, value in fields.items() if key != name}
        assert error_of(model, rest) == ((name,), "missing")


@each_model
def test_model_is_frozen(model: type[Frozen], fields: dict[str, Any]) -> None:
    made = model(**fields)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(fields)), None)


@pytest.mark.parametrize(
    ("model", "fields", "name"),
    [(JobTerms, TERMS, name) for name in ("price_per_record", "price_per_epoch", "deadline")]
    + [(Receipt, RECEIPT, name) for name in ("records", "epochs")]
    + [(EnclaveRegistration, REGISTRATION, name) for name in ("node_id", "expiry", "epoch")],
)
def test_counters_and_amounts_are_uint64(
    model: type[Frozen], fields: dict[str, Any], name: str
) -> None:
    assert getattr(model(**{**fields, name: TOP}), name) == TOP
    assert error_of(model, {**fields, name: TOP + 1}) == ((name,), "less_than")
    assert error_of(model, {**fields, name: -1})[0] == (name,)
    for wrong in (1.0, "1", True, None):
        assert error_of(model, {**fields, name: wrong}) == ((name,), "int_type")


@pytest.mark.parametrize(
    ("model", "fields", "name", "top"),
    [
        (JobTerms, TERMS, "node_id", MAX_NODE_ID),
        (JobTerms, TERMS, "budget", MAX_BUDGET),
        (Assignment, ASSIGNMENT, "node_id", MAX_NODE_ID),
    ],
)
def test_nodes_and_budgets_fit_the_vaults_words(
    model: type[Frozen], fields: dict[str, Any], name: str, top: int
) -> None:
    assert getattr(model(**{**fields, name: top}), name) == top
    assert error_of(model, {**fields, name: top + 1}) == ((name,), "less_than_equal")


@pytest.mark.parametrize(
    ("model", "fields", "name"),
    [
        (JobTerms, TERMS, "budget"),
        (EnclaveRegistration, REGISTRATION, "node_id"),
        (Assignment, ASSIGNMENT, "node_id"),
        (Deposit, DEPOSIT, "amount"),
        (Withdrawal, WITHDRAWAL, "amount"),
    ],
)
def test_zero_is_no_node_and_no_amount(
    model: type[Frozen], fields: dict[str, Any], name: str
) -> None:
    assert error_of(model, {**fields, name: 0}) == ((name,), "greater_than")


def test_terms_with_node_zero_leave_the_node_open() -> None:
    assert JobTerms(**{**TERMS, "node_id": 0}).node_id == 0


@pytest.mark.parametrize(("count", "kind"), [(0, "too_short"), (51, "too_long")])
def test_one_signature_opens_1_to_50_jobs(count: int, kind: str) -> None:
    assert len(OpenJobs(jobs=[TERMS] * 50).jobs) == 50
    assert error_of(OpenJobs, {"jobs": [TERMS] * count}) == (("jobs",), kind)


def test_zero_prices_and_counters_are_legal() -> None:
    assert JobTerms(**{**TERMS, "price_per_record": 0, "price_per_epoch": 0}).budget == 4
    assert Receipt(**{**RECEIPT, "records": 0, "epochs": 0, "complete": True}).complete


@pytest.mark.parametrize("value", [ZERO_ADDRESS, "0x12", "payer", b"\x01" * 20, 5, None])
def test_zero_or_malformed_address_is_no_party(value: Any) -> None:
    assert error_of(JobTerms, {**TERMS, "payer": value}) == (("payer",), "value_error")
    assert error_of(EnclaveRegistration, {**REGISTRATION, "enclave_key": value})[0] == (
        "enclave_key",
    )


def test_address_gets_its_checksum() -> None:
    assert JobTerms(**{**TERMS, "payer": PAYER.lower()}).payer == PAYER


@pytest.mark.parametrize("length", [0, 31, 33])
def test_digest_has_32_bytes(length: int) -> None:
    kind = "too_short" if length < 32 else "too_long"
    assert error_of(JobTerms, {**TERMS, "salt": bytes(length)}) == (("salt",), kind)


@pytest.mark.parametrize("length", [0, 64, 66])
def test_signature_has_65_bytes(length: int) -> None:
    fields = {"receipt": RECEIPT, "signature": bytes(length)}
    kind = "too_short" if length < 65 else "too_long"
    assert error_of(SignedReceipt, fields) == (("signature",), kind)


@given(
    records=st.integers(0, TOP),
    epochs=st.integers(0, TOP),
    per_record=st.integers(0, TOP),
    per_epoch=st.integers(0, TOP),
    budget=st.integers(1, MAX_BUDGET),
)
def test_earned_is_price_times_count_up_to_the_budget(
    records: int, epochs: int, per_record: int, per_epoch: int, budget: int
) -> None:
    changes = {"price_per_record": per_record, "price_per_epoch": per_epoch, "budget": budget}
    earned = JobTerms(**{**TERMS, **changes}).earned(records, epochs)
    worth = records * per_record + epochs * per_epoch
    assert earned == (worth if worth <= budget else budget)
