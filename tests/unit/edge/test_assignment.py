import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from oracle.clients.edge.assignment import check_terms, open_bundle
from oracle.clients.edge.errors import TermsRefused
from oracle.clients.edge.policy.digest import policy_digest
from settlement.digests import result_key_digest
from settlement.eip712 import job_id
from settlement.hub.messages import JobAssignment
from settlement.models import JobTerms, Work

NOW = 1_800_000_000
RESULT_KEY = X25519PrivateKey.generate().public_key().public_bytes_raw()


@pytest.fixture
def assignment(profile, policy, make_bundle, deployment):
    bundle = make_bundle()
    terms = JobTerms(
        payer="0x" + "99" * 20,
        node_id=7,
        price_per_record=100,
        price_per_epoch=10,
        budget=4030,
        deadline=NOW + 100,
        work=Work(
            model_digest=bundle.digest,
            dataset_digest=profile.dataset_digest,
            policy_digest=policy_digest(policy),
            result_key_digest=result_key_digest(RESULT_KEY),
        ),
        salt=bytes(32),
    )
    return JobAssignment(
        job_id=job_id(terms, deployment.vault_domain),
        terms=terms,
        bundle=bundle.to_zip(),
        policy=policy,
        epochs=3,
        result_key=RESULT_KEY,
    )


@pytest.fixture
def check(profile, deployment):
    return lambda assignment: check_terms(assignment, profile, deployment.vault_domain, now=NOW)


def with_terms(assignment, deployment, **changes):
    terms = assignment.terms.model_copy(update=changes)
    return assignment.model_copy(
        update={"terms": terms, "job_id": job_id(terms, deployment.vault_domain)}
    )


def test_an_assignment_that_keeps_its_terms_passes(assignment, check):
    check(assignment)
    assert open_bundle(assignment).digest == assignment.terms.work.model_digest


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("node_id", {"node_id": 8}),
        ("price_per_record", {"price_per_record": 99}),
        ("price_per_epoch", {"price_per_epoch": 9}),
        ("budget", {"budget": 4029}),
        ("deadline", {"deadline": NOW}),
    ],
)
def test_terms_that_do_not_fit_the_offer_are_refused(assignment, check, deployment, field, changes):
    with pytest.raises(TermsRefused) as caught:
        check(with_terms(assignment, deployment, **changes))
    assert caught.value.field == field


def test_terms_of_another_dataset_are_refused(assignment, check, deployment):
    work = assignment.terms.work.model_copy(update={"dataset_digest": bytes([4] * 32)})
    with pytest.raises(TermsRefused) as caught:
        check(with_terms(assignment, deployment, work=work))
    assert caught.value.field == "dataset_digest"


@pytest.mark.parametrize(
    ("field", "update"),
    [
        ("job_id", {"job_id": bytes(32)}),
        ("result_key_digest", {"result_key": bytes([1] * 32)}),
        ("budget", {"epochs": 4}),
    ],
)
def test_an_assignment_that_differs_from_its_terms_is_refused(assignment, check, field, update):
    with pytest.raises(TermsRefused) as caught:
        check(assignment.model_copy(update=update))
    assert caught.value.field == field


def test_terms_forged_under_a_funded_job_id_are_refused(assignment, check):
    terms = assignment.terms.model_copy(update={"payer": "0x" + "98" * 20})
    with pytest.raises(TermsRefused) as caught:
        check(assignment.model_copy(update={"terms": terms}))
    assert caught.value.field == "job_id"


def test_a_laxer_policy_than_agreed_is_refused(assignment, check, policy):
    laxer = policy.model_copy(update={"max_tensors": 1000})
    with pytest.raises(TermsRefused) as caught:
        check(assignment.model_copy(update={"policy": laxer}))
    assert caught.value.field == "policy_digest"


def test_another_bundle_than_agreed_is_refused(assignment, make_bundle):
    other = make_bundle("def train(loader, hyperparameters): ...").to_zip()
    with pytest.raises(TermsRefused) as caught:
        open_bundle(assignment.model_copy(update={"bundle": other}))
    assert caught.value.field == "model_digest"
