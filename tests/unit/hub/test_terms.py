"""Terms say exactly what was asked and offered."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from oracle.clients.edge.policy.digest import base_rules, policy_digest
from oracle.clients.hub.errors import ResultKeyUnusable
from oracle.clients.hub.result_key import check_result_key
from settlement import digests
from settlement.eip712 import job_id, vault_domain
from settlement.hub.messages import DatasetProfile, JobCreated, JobRequest, Route
from settlement.hub.terms import QuoteMismatch, build_terms, check_quote
from settlement.models import JobTerms

P = 2**255 - 19
VAULT = vault_domain(31337, "0x" + "22" * 20)


def built(request: JobRequest, profile: DatasetProfile) -> JobTerms:
    digest = policy_digest(request.policy)
    return build_terms(
        request, profile, bundle_digest=b"m" * 32, policy_digest=digest, salt=b"s" * 32
    )


def check(created: JobCreated, request: JobRequest, profile: DatasetProfile) -> None:
    digest = policy_digest(request.policy)
    check_quote(
        created, request, profile, bundle_digest=b"m" * 32, policy_digest=digest, vault=VAULT
    )


def test_terms_join_request_and_profile(
    make_request: Callable[..., JobRequest], make_profile: Callable[..., DatasetProfile]
) -> None:
    request, profile = make_request(), make_profile(3)
    terms = built(request, profile)
    assert (terms.payer, terms.budget, terms.deadline, terms.salt) == (
        request.payer,
        request.budget,
        request.deadline,
        b"s" * 32,
    )
    assert (terms.node_id, terms.price_per_record, terms.price_per_epoch) == (3, 10_000, 50_000)
    assert terms.work.model_digest == b"m" * 32
    assert terms.work.dataset_digest == profile.dataset_digest
    assert terms.work.result_key_digest == digests.result_key_digest(request.result_key)
    document = request.policy.model_dump(mode="json")
    assert terms.work.policy_digest == digests.policy_digest(base_rules(), document)


def test_worst_case_is_what_the_terms_can_earn(
    make_request: Callable[..., JobRequest], make_profile: Callable[..., DatasetProfile]
) -> None:
    request, profile = make_request(budget=10**12), make_profile()
    terms = built(request, profile)
    earned = terms.earned(profile.record_count, request.epochs)
    assert profile.worst_case(request.epochs) == earned


@pytest.mark.parametrize("point", [0, 1, P - 1, P, P + 1])
def test_small_order_result_key_is_refused(point: int) -> None:
    with pytest.raises(ResultKeyUnusable):
        check_result_key(point.to_bytes(32, "little"))


def test_proper_result_key_passes() -> None:
    check_result_key(X25519PrivateKey.generate().public_key().public_bytes_raw())


def quoted(
    make_request: Callable[..., JobRequest], make_profile: Callable[..., DatasetProfile]
) -> tuple[JobRequest, DatasetProfile, JobCreated]:
    request, profile = make_request(), make_profile(3)
    terms = built(request, profile)
    route = Route(node_id=3, why=("the only one",), quotes=())
    return request, profile, JobCreated(job_id=job_id(terms, VAULT), terms=terms, route=route)


def test_developer_accepts_the_terms_it_asked_for(
    make_request: Callable[..., JobRequest], make_profile: Callable[..., DatasetProfile]
) -> None:
    request, profile, created = quoted(make_request, make_profile)
    check(created, request, profile)


@pytest.mark.parametrize("field", [name for name in JobTerms.model_fields if name != "salt"])
def test_developer_refuses_terms_in_which_the_hub_changed_a_field(
    make_request: Callable[..., JobRequest],
    make_profile: Callable[..., DatasetProfile],
    field: str,
) -> None:
    request, profile, created = quoted(make_request, make_profile)
    changed = {
        "payer": "0x" + "11" * 20,
        "work": created.terms.work.model_copy(update={"result_key_digest": b"t" * 32}),
    }
    value = changed.get(field) or getattr(created.terms, field) + 1
    terms = created.terms.model_copy(update={field: value})
    cheated = created.model_copy(update={"terms": terms, "job_id": job_id(terms, VAULT)})
    with pytest.raises(QuoteMismatch) as refused:
        check(cheated, request, profile)
    assert refused.value.fields == (field,)


def test_developer_refuses_an_id_that_is_not_the_terms(
    make_request: Callable[..., JobRequest], make_profile: Callable[..., DatasetProfile]
) -> None:
    request, profile, created = quoted(make_request, make_profile)
    cheated = created.model_copy(update={"job_id": b"\x01" * 32})
    with pytest.raises(QuoteMismatch) as refused:
        check(cheated, request, profile)
    assert refused.value.fields == ("job_id",)


@pytest.mark.parametrize(
    "change",
    [{"record_count": 570}, {"deduplicate": True}, {"modality": "other"}, {"schema": ("a:F64",)}],
)
def test_a_profile_states_what_its_digest_stands_for(
    make_profile: Callable[..., DatasetProfile], change: dict[str, object]
) -> None:
    values = make_profile().model_dump()
    with pytest.raises(ValidationError, match="not the digest of what the profile states"):
        DatasetProfile.model_validate(values | change)
