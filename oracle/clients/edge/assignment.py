"""Checks a job that the hub hands over against its terms and this node's own offer. Pure."""

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.errors import TermsRefused
from oracle.clients.edge.policy.digest import policy_digest
from settlement.digests import result_key_digest
from settlement.eip712 import Domain, job_id
from settlement.hub.messages import DatasetProfile, JobAssignment
from settlement.types import to_hex


def check_terms(
    assignment: JobAssignment, profile: DatasetProfile, vault: Domain, *, now: int
) -> None:
    """Pass a job whose terms are the ones named by its id and fit what this node published.

    `now` is Unix seconds.

    Raises:
        TermsRefused: naming the first field that does not fit.
    """
    terms, work = assignment.terms, assignment.terms.work
    computed = job_id(terms, vault)
    for field, expected, actual in (
        ("job_id", computed, assignment.job_id),
        ("node_id", profile.node_id, terms.node_id),
        ("price_per_record", profile.price_per_record, terms.price_per_record),
        ("price_per_epoch", profile.price_per_epoch, terms.price_per_epoch),
        ("dataset_digest", profile.dataset_digest, work.dataset_digest),
        ("policy_digest", policy_digest(assignment.policy), work.policy_digest),
        ("result_key_digest", result_key_digest(assignment.result_key), work.result_key_digest),
    ):
        if actual != expected:
            raise TermsRefused(field, _shown(expected), _shown(actual))
    if terms.deadline <= now:
        raise TermsRefused("deadline", f"one after {now}", terms.deadline)
    worst_case = profile.worst_case(assignment.epochs)
    if terms.budget < worst_case:
        raise TermsRefused("budget", f"at least {worst_case}", terms.budget)


def open_bundle(assignment: JobAssignment) -> Bundle:
    """The assignment's bundle, which is the one that its terms name.

    Raises:
        settlement.bundle.BundleRefused: when it breaks a rule.
        TermsRefused: when it is another bundle.
    """
    bundle = Bundle.from_zip(assignment.bundle)
    expected = assignment.terms.work.model_digest
    if bundle.digest != expected:
        raise TermsRefused("model_digest", to_hex(expected), to_hex(bundle.digest))
    return bundle


def _shown(value: bytes | int) -> str | int:
    return to_hex(value) if isinstance(value, bytes) else value
