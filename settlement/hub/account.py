"""Who uses a hub, and by which right: registrations and their review, sessions, API keys, audit.

Times are Unix seconds.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from settlement.dataset import Label
from settlement.deployment import Deployment
from settlement.types import Address, Bytes32, Frozen, HexData, UInt64, Usdc

MAX_PROOF = 1 << 16
"""Characters of a proof; a real one has about 2,000."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""What a developer goes by at a hub."""
Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""What people write in one line."""
Words = Annotated[
    str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")
]
"""What people write, with line breaks and tabs, and no other control character."""
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Role(StrEnum):
    """Who may ask. An applicant has signed in with a wallet that is not approved (yet)."""

    DEVELOPER = "developer"
    NODE = "node"
    OPERATOR = "operator"
    APPLICANT = "applicant"


class Scope(StrEnum):
    """What a key or session is for.

    READ: catalogue, jobs and deliveries. SUBMIT: bundles, jobs and escrows. MANAGE: API keys.
    WORK: what a node does. OPERATE: reviews and the whole hub.
    """

    READ = "read"
    SUBMIT = "submit"
    MANAGE = "manage"
    WORK = "work"
    OPERATE = "operate"


class CompanyProfile(Frozen):
    """Who wants hospital data, and what for. `compute_budget` is what it means to spend, USDC base
    units; `architecture` is the model's, in the company's words."""

    website: Annotated[str, StringConstraints(pattern=r"^https://[!-~]{1,200}$")] | None = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    contact: Line
    architecture: Line
    modality: Label
    compute_budget: Usdc = Field(gt=0)
    purpose: Words


class RegistrationTerms(Frozen):
    """What registering takes here: a session of the wallet (EIP-4361), or a proof, or both.

    Where `proof_required`, a session alone does not do. A proof has to be about one of these
    `templates`, made for the wallet that registers, with `purpose` as its context message, and at
    most `max_age` seconds old. Without `provider` none is taken.
    """

    proof_required: bool
    provider: str | None = None
    templates: tuple[str, ...] = ()
    purpose: str | None = None
    max_age: int | None = None


class RegistrationState(StrEnum):
    """PENDING: to be reviewed. ASKED: the operator wants to know more. APPROVED: it may bring jobs.
    REJECTED: it may try again."""

    PENDING = "PENDING"
    ASKED = "ASKED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class RegistrationRequest(Frozen):
    """A developer's profile and its wallet. `name` is what its jobs will go by at this hub.

    A `proof` says that somebody's account is behind both; without one the request comes in a
    session of this wallet.
    """

    name: Name
    company: Line
    wallet: Address
    profile: CompanyProfile
    provider: str = Field(default="reclaim", max_length=32)
    proof: str | None = Field(default=None, max_length=MAX_PROOF)


class Step(StrEnum):
    """What happened in a review."""

    ASKED = "asked"
    ANSWERED = "answered"
    APPROVED = "approved"
    REJECTED = "rejected"


class ReviewEntry(Frozen):
    """One step of a review and its reason, in words."""

    at: UInt64
    step: Step
    text: Words


class Registration(Frozen):
    """A registration; whoever knows `registration_id` may see it.

    Of a proof it keeps where the account is, and nothing that is in it.
    """

    registration_id: Bytes32
    name: Name
    company: Line
    wallet: Address
    profile: CompanyProfile | None
    provider: str | None
    site: str | None
    template: str | None
    state: RegistrationState
    proven_at: UInt64 | None
    requested_at: UInt64
    decided_at: UInt64 | None
    review: tuple[ReviewEntry, ...] = ()


class Registrations(Frozen):
    """A page of the review queue, the oldest first; `next` asks for the following one."""

    registrations: tuple[Registration, ...]
    next: str | None = None


class Answer(Frozen):
    """What an applicant answers to the operator's question."""

    text: Words


class Decision(Frozen):
    """What an operator decides of a registration, and why; the applicant reads the reason."""

    action: Literal["approve", "ask", "reject"]
    reason: Words


class IssuedKey(Frozen):
    """An approved registration and its API key, which is shown this once."""

    registration: Registration
    api_key: str


class KeyRequest(Frozen):
    """A wish for an API key. `lifetime` is seconds, None: until it is revoked."""

    label: Line = Field(max_length=64)
    scopes: frozenset[Scope] = Field(min_length=1)
    lifetime: int | None = Field(default=None, ge=60, le=10 * 365 * 86_400)


class KeyRotation(Frozen):
    """How long the key that is replaced still counts, in seconds."""

    overlap: int = Field(default=0, ge=0, le=7 * 86_400)


class KeyView(Frozen):
    """An API key without its secret."""

    key_id: KeyId
    label: str
    scopes: tuple[Scope, ...]
    created_at: UInt64
    expires_at: UInt64 | None
    revoked_at: UInt64 | None


class NewKey(Frozen):
    """A key and its secret, which nobody can show again."""

    key: KeyView
    api_key: str


class SignInRequest(Frozen):
    """Whose wallet wants to sign in."""

    address: Address


class SignInChallenge(Frozen):
    """The EIP-4361 message to sign (EIP-191, `personal_sign`) before `expires_at`."""

    message: str
    nonce: str
    expires_at: UInt64


class SignIn(Frozen):
    """A signed EIP-4361 message: by an ECDSA key, or by a smart wallet (ERC-1271)."""

    message: str = Field(max_length=4096)
    signature: HexData = Field(min_length=1, max_length=4096)


class Session(Frozen):
    """A session of a wallet, and what it may do.

    `csrf_token` goes into the header `X-CSRF-Token` of each request that changes something.
    `name` is the developer's (or operator's), `registration_id` the wallet's standing registration.
    """

    wallet: Address
    role: Role
    name: str | None
    scopes: tuple[Scope, ...]
    registration_id: Bytes32 | None
    csrf_token: str
    expires_at: UInt64


class AuditEntry(Frozen):
    """Who did what, when. `via` is the key's id, or "session", "command" or "hub"."""

    entry_id: int
    at: UInt64
    role: str
    actor: str
    via: str
    tenant: str | None
    action: str
    target: str
    detail: dict[str, Any] | None


class AuditTrail(Frozen):
    """A page of the audit trail, the newest first; `next` asks for the following one."""

    entries: tuple[AuditEntry, ...]
    next: str | None = None


class HubInfo(Frozen):
    """What this hub is for, and what it takes."""

    deployment: Deployment
    registration: Literal["closed", "proof", "wallet"]
    smart_wallets: bool
    max_bundle_bytes: int
    upload_seconds: int
    delivery_seconds: int
