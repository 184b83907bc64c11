"""What the hub refuses, by name. `status` is the HTTP answer, `data` what a machine needs of it."""

from typing import Any, ClassVar

from settlement.errors import InvalidInput, RaphaError
from settlement.hub.messages import ArtifactName, JobState, NodeQuote
from settlement.types import to_hex


def in_usdc(amount: int) -> str:
    """Base units in words: ``1.5 USDC (1500000 base units)``."""
    whole, part = divmod(amount, 10**6)
    fraction = f".{part:06d}".rstrip("0") if part else ""
    return f"{whole}{fraction} USDC ({amount} base units)"


class HubError(RaphaError):
    """Base of the hub's refusals."""

    status: ClassVar[int]

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__(detail)
        self.data = data


class Unauthorized(HubError, PermissionError):
    """No API key, or not one of the hub's."""

    status = 401

    def __init__(self) -> None:
        super().__init__("a valid API key is needed: Authorization: Bearer <key>")


class WrongRole(HubError, PermissionError):
    """A developer's call with a node's key, or the other way round."""

    status = 403

    def __init__(self, needed: str) -> None:
        super().__init__(f"this call needs the API key of a {needed}", needed=needed)


class ScopeMissing(HubError, PermissionError):
    """The key or session is not for this."""

    status = 403

    def __init__(self, needed: str) -> None:
        super().__init__(f"this call needs the scope {needed}", needed=needed)


class CsrfRefused(HubError, PermissionError):
    """A browser's session changes something only with its token, and from its own pages."""

    status = 403

    def __init__(self, why: str) -> None:
        super().__init__(f"the request is not by this hub's own page: {why}")


class SignInRefused(HubError, PermissionError):
    """A signed message with which nobody is signed in; `reason` says which part of it is wrong."""

    status = 401

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail, reason=reason)
        self.reason = reason


class RateLimited(HubError, RuntimeError):
    """Too many requests; `retry_after` seconds from now there may be more."""

    status = 429
    final = False

    def __init__(self, limit: str, retry_after: int) -> None:
        super().__init__(f"more than {limit}", limit=limit, retry_after=retry_after)
        self.retry_after = retry_after


class ChainUnavailable(HubError, ConnectionError):
    """The chain's RPC endpoint gives no usable answer now."""

    status = 503
    final = False

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chain cannot be asked now ({reason})")


class NotYourNode(HubError, PermissionError):
    """A node's key speaks for its own node only."""

    status = 403

    def __init__(self, node_id: int) -> None:
        super().__init__(f"this API key does not speak for node {node_id}", node_id=node_id)


class JobUnknown(HubError, LookupError):
    """No such job, or not one of the asker's: the two cannot be told apart on purpose."""

    status = 404

    def __init__(self, job_id: bytes) -> None:
        super().__init__(f"no job {to_hex(job_id)} is known for this key", job_id=to_hex(job_id))


class BudgetTooSmall(HubError, ValueError):
    """The budget does not cover what the job can cost at most on the cheapest fitting node."""

    status = 422

    def __init__(self, needed: int, given: int) -> None:
        super().__init__(
            f"the job can cost up to {in_usdc(needed)}, the budget is {in_usdc(given)}",
            needed=needed,
            given=given,
        )
        self.needed = needed
        self.given = given


class DeadlineTooSoon(HubError, ValueError):
    """The deadline leaves too little time; both are Unix seconds."""

    status = 422

    def __init__(self, deadline: int, earliest: int) -> None:
        super().__init__(
            f"the deadline {deadline} must not be before {earliest}",
            deadline=deadline,
            earliest=earliest,
        )


class ResultKeyUnusable(HubError, ValueError):
    """An X25519 key of small order: whatever is encrypted to it is readable by anyone."""

    status = 422

    def __init__(self) -> None:
        super().__init__("the result key is an X25519 point of small order; make a new key pair")


class NoNodeAvailable(HubError, LookupError):
    """No node fits now; `quotes` says of each why not."""

    status = 409
    final = False

    def __init__(self, quotes: tuple[NodeQuote, ...]) -> None:
        reasons = "; ".join(f"node {quote.node_id}: {', '.join(quote.why)}" for quote in quotes)
        super().__init__(
            f"no node can take the job: {reasons or 'no dataset profile is published'}",
            quotes=[quote.model_dump(mode="json") for quote in quotes],
        )
        self.quotes = quotes


class JobNotRunning(HubError, RuntimeError):
    """The call needs a job that its node leased and has not ended."""

    status = 409

    def __init__(self, job_id: bytes, state: JobState) -> None:
        super().__init__(
            f"job {to_hex(job_id)} is {state}, not RUNNING", job_id=to_hex(job_id), state=state
        )


class ArtifactConflict(HubError, FileExistsError):
    """Artifacts are written once: other bytes are already there."""

    status = 409

    def __init__(self, job_id: bytes, name: ArtifactName) -> None:
        super().__init__(
            f"job {to_hex(job_id)} already has other {name}", job_id=to_hex(job_id), name=name
        )


class ArtifactUnknown(HubError, LookupError):
    """The artifact is not there yet."""

    status = 404
    final = False

    def __init__(self, job_id: bytes, name: ArtifactName) -> None:
        super().__init__(
            f"job {to_hex(job_id)} has no {name} yet", job_id=to_hex(job_id), name=name
        )


class BodyTooLarge(HubError, ValueError):
    """More bytes than this call takes."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes", limit=limit)


class KeysFileMalformed(InvalidInput):
    """The file of API keys cannot be used; its contents are never repeated."""


class NodeNotAttested(HubError, RuntimeError):
    """A node gets no new job while its enclave or its TPM does not count.

    `reasons` are the oracle's names for it.
    """

    status = 409
    final = False

    def __init__(self, node_id: int, reasons: tuple[str, ...]) -> None:
        super().__init__(
            f"node {node_id} holds no valid attestation now ({', '.join(reasons)})",
            node_id=node_id,
            reasons=list(reasons),
        )


class RegistrationClosed(HubError, RuntimeError):
    """This hub takes no registrations: its operator hands out keys otherwise."""

    status = 409

    def __init__(self) -> None:
        super().__init__("this hub takes no registrations; ask its operator for a key")


class RegistrationUnknown(HubError, LookupError):
    """No such registration."""

    status = 404

    def __init__(self, registration_id: bytes) -> None:
        super().__init__(f"no registration {to_hex(registration_id)}")


class NotUnderReview(HubError, RuntimeError):
    """The review is not at the point where this is asked or answered."""

    status = 409

    def __init__(self, registration_id: bytes, state: str, needed: str) -> None:
        super().__init__(
            f"registration {to_hex(registration_id)} is {state}, not {needed}", state=state
        )


class ProofNeeded(HubError, ValueError):
    """Registering takes more than what came: a proof, or a session of the wallet."""

    status = 422

    def __init__(self, what: str) -> None:
        super().__init__(f"a registration here needs {what}")


class KeyUnknown(HubError, LookupError):
    """No such API key of the asker's."""

    status = 404

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no API key {key_id}", key_id=key_id)


class TooManyKeys(HubError, RuntimeError):
    """As many keys as one party may hold; revoke one first."""

    status = 409

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} API keys are in use, and no more are given", limit=limit)


class UploadUnknown(HubError, LookupError):
    """No such upload of the asker's, or it has expired."""

    status = 404

    def __init__(self, upload_id: bytes) -> None:
        super().__init__(f"no upload {to_hex(upload_id)} is known", upload_id=to_hex(upload_id))


class UploadMisplaced(HubError, ValueError):
    """The bytes do not continue what is there: go on from `offset`."""

    status = 409
    final = False

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload goes on at offset {offset}", offset=offset)
        self.offset = offset


class UploadUnfit(HubError, ValueError):
    """The upload is not (yet) a bundle that can be trained; `fault` says what is wrong with it."""

    status = 409

    def __init__(self, detail: str, **fault: Any) -> None:
        super().__init__(detail, **fault)


class TusRefused(HubError, ValueError):
    """A request in another version of the tus protocol than 1.0.0."""

    status = 412

    def __init__(self, given: str | None) -> None:
        super().__init__(f"Tus-Resumable must be 1.0.0, not {given}", supported="1.0.0")


class ContentTypeRefused(HubError, ValueError):
    """The body is of another type than this call takes."""

    status = 415

    def __init__(self, needed: str) -> None:
        super().__init__(f"the content type must be {needed}", needed=needed)


class TooManyUploads(HubError, RuntimeError):
    """Unfinished uploads take room; finish or delete one."""

    status = 409

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} uploads are open, and no more are taken", limit=limit)


class IdempotencyConflict(HubError, ValueError):
    """The same Idempotency-Key came with another request."""

    status = 422

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key} was used for another request", key=key)


class NodeAbsent(HubError, RuntimeError):
    """The job's node was not heard of for too long to put money in escrow for it."""

    status = 409
    final = False

    def __init__(self, job_id: bytes, node_id: int, silent: int) -> None:
        super().__init__(
            f"node {node_id} was not heard of for {silent} seconds, so nothing is paid into escrow "
            f"for it; ask for the job at another node (POST /v1/jobs/{to_hex(job_id)}/reroute), or "
            "try again once the node is back",
            node_id=node_id,
        )


class JobStillHeld(HubError, RuntimeError):
    """The job's budget is in escrow for its node, and for no other."""

    status = 409
    final = False

    def __init__(self, job_id: bytes, node_id: int) -> None:
        super().__init__(
            f"the budget of job {to_hex(job_id)} is in escrow for node {node_id}, and the vault "
            "pays no other for it; its payer has to cancel it first (GET "
            f"/v1/jobs/{to_hex(job_id)}/calls), what is not earned goes back",
            node_id=node_id,
        )


class JobNotRepeatable(HubError, ValueError):
    """The job cannot be asked for again from what is on record."""

    status = 409

    def __init__(self, job_id: bytes, why: str) -> None:
        super().__init__(f"job {to_hex(job_id)} cannot be asked for again: {why}", why=why)


class ReceiptsUnreadable(HubError, ValueError):
    """What the node delivered as the job's receipts is not that."""

    status = 409

    def __init__(self, job_id: bytes, why: str) -> None:
        super().__init__(
            f"what the node delivered as receipts of job {to_hex(job_id)} cannot be read ({why}); "
            "what was paid is in its settlement",
            why=why,
        )


class ProfileOutdated(HubError, ValueError):
    """What the node published states less than terms now need."""

    status = 409

    def __init__(self, node_id: int) -> None:
        super().__init__(
            f"node {node_id} published its profile before datasets had a commitment; it has to "
            f"publish it anew (PUT /v1/nodes/{node_id}/profile, which a node does when it starts)",
            node_id=node_id,
        )


class NodeUnknown(HubError, LookupError):
    """No profile of such a node is published."""

    status = 404

    def __init__(self, node_id: int) -> None:
        super().__init__(f"no node {node_id} is in the catalogue", node_id=node_id)


class ArtifactExpired(HubError, LookupError):
    """The delivery was kept as long as promised, and is gone."""

    status = 410

    def __init__(self, job_id: bytes, name: ArtifactName, expired_at: int) -> None:
        super().__init__(
            f"the {name} of job {to_hex(job_id)} were kept until {expired_at}",
            job_id=to_hex(job_id),
            name=name,
            expired_at=expired_at,
        )


class NameTaken(HubError, ValueError):
    """Somebody else goes by this name at this hub."""

    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name} is taken at this hub; choose another", name=name)


class WalletTaken(HubError, ValueError):
    """The wallet is bound to another account."""

    status = 409

    def __init__(self, wallet: str) -> None:
        super().__init__(f"wallet {wallet} is bound to another registration", wallet=wallet)


class AlreadyRegistered(HubError, ValueError):
    """This account is registered already, for this wallet, under another name."""

    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"this account is registered as {name}", name=name)


class RegistrationRaced(HubError, RuntimeError):
    """Another registration took name, wallet or account at the same moment: ask again."""

    status = 409
    final = False

    def __init__(self) -> None:
        super().__init__("another registration came at the same moment; try again")


class PayerNotBound(HubError, PermissionError):
    """A registered developer pays from the wallet that it proved."""

    status = 422

    def __init__(self, payer: str, wallet: str) -> None:
        super().__init__(
            f"the payer is {payer}, this account is bound to wallet {wallet}",
            payer=payer,
            wallet=wallet,
        )
