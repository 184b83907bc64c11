"""What the hub refuses, by name. `status` is the HTTP answer, `data` what a machine needs of it."""

from typing import Any, ClassVar

from oracle.clients.hub.messages import ArtifactName, JobState, NodeQuote
from settlement.errors import InvalidInput, RaphaError
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


class QuoteMismatch(InvalidInput):
    """The hub's terms are not what the developer asked for; nothing should be signed."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self.fields = fields
        super().__init__(f"the hub's terms differ from the request in: {', '.join(fields)}")
