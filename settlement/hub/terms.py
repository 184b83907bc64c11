"""From a request and its route to the terms that the payer signs, and the payer's check of them.

Pure: the salt is handed in.
"""

from settlement import digests
from settlement.eip712 import Domain, job_id
from settlement.errors import InvalidInput
from settlement.hub.messages import DatasetProfile, JobCreated, JobRequest
from settlement.models import JobTerms, Work


class QuoteMismatch(InvalidInput):
    """The hub's terms are not what the developer asked for; nothing should be signed."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self.fields = fields
        super().__init__(f"the hub's terms differ from the request in: {', '.join(fields)}")


def build_terms(
    request: JobRequest,
    profile: DatasetProfile,
    *,
    bundle_digest: bytes,
    policy_digest: bytes,
    salt: bytes,
) -> JobTerms:
    """The whole agreement; a fresh random 32-byte `salt` keeps equal jobs apart.

    `policy_digest` is `settlement.digests.policy_digest` of the nodes' rules with the policy.
    """
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
            policy_digest=policy_digest,
            result_key_digest=digests.result_key_digest(request.result_key),
        ),
        salt=salt,
    )


def check_quote(
    created: JobCreated,
    request: JobRequest,
    profile: DatasetProfile,
    *,
    bundle_digest: bytes,
    policy_digest: bytes,
    vault: Domain,
) -> None:
    """What a developer makes sure of before it signs: the hub proposes what was asked, no more.

    Raises:
        QuoteMismatch: naming each field of the terms that differs, or the job id.
    """
    expected = build_terms(
        request,
        profile,
        bundle_digest=bundle_digest,
        policy_digest=policy_digest,
        salt=created.terms.salt,
    )
    differing = [
        name
        for name in JobTerms.model_fields
        if getattr(expected, name) != getattr(created.terms, name)
    ]
    if created.job_id != job_id(created.terms, vault):
        differing.append("job_id")
    if differing:
        raise QuoteMismatch(tuple(differing))
