"""From a request and its route to the terms that the payer signs, and the payer's check of them.

Pure: the salt is handed in.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from oracle.clients.hub.errors import QuoteMismatch, ResultKeyUnusable
from oracle.clients.hub.messages import DatasetProfile, JobCreated, JobRequest
from settlement import digests
from settlement.eip712 import Domain, job_id
from settlement.models import JobTerms, Work

# Any scalar will do: X25519 clears the cofactor, so a small-order point always gives zero.
_PROBE = X25519PrivateKey.from_private_bytes(bytes([1] * 32))


def check_result_key(result_key: bytes) -> None:
    """Pass an X25519 public key that can keep a secret (RFC 7748, section 6.1).

    Raises:
        ResultKeyUnusable: for a point of small order, the zero key among them.
    """
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(result_key))
    except ValueError as error:
        raise ResultKeyUnusable from error


def build_terms(
    request: JobRequest, profile: DatasetProfile, bundle_digest: bytes, salt: bytes
) -> JobTerms:
    """The whole agreement; a fresh random 32-byte `salt` keeps equal jobs apart."""
    return JobTerms(
        payer=request.payer,
        node_id=profile.node_id,
        price_per_record=profile.price_per_record,
        price_per_epoch=profile.price_per_epoch,
        budget=request.budget,
        deadline=request.deadline,
        work=Work(
            model_digest=bundle_digest,
            dataset_digest=profile.dataset_digest,
            policy_digest=request.policy.digest,
            result_key_digest=digests.result_key_digest(request.result_key),
        ),
        salt=salt,
    )


def check_quote(
    created: JobCreated,
    request: JobRequest,
    profile: DatasetProfile,
    bundle_digest: bytes,
    vault: Domain,
) -> None:
    """What a developer makes sure of before it signs: the hub proposes what was asked, no more.

    Raises:
        QuoteMismatch: naming each field of the terms that differs, or the job id.
    """
    expected = build_terms(request, profile, bundle_digest, created.terms.salt)
    differing = [
        name
        for name in JobTerms.model_fields
        if getattr(expected, name) != getattr(created.terms, name)
    ]
    if created.job_id != job_id(created.terms, vault):
        differing.append("job_id")
    if differing:
        raise QuoteMismatch(tuple(differing))
