"""Sessions, registrations, API keys, the audit trail, and the operator's review queue."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from oracle.clients.hub.callers import (
    Caller,
    Known,
    Limit,
    Manager,
    Operator,
    SessionToken,
    Stranger,
    TheHub,
)
from oracle.clients.hub.errors import Unauthorized, WrongRole
from settlement.hub.account import (
    Answer,
    AuditTrail,
    Decision,
    HubInfo,
    KeyId,
    KeyRequest,
    KeyRotation,
    KeyView,
    NewKey,
    Registration,
    RegistrationRequest,
    Registrations,
    RegistrationState,
    RegistrationTerms,
    Role,
    Scope,
    Session,
    SignIn,
    SignInChallenge,
    SignInRequest,
)
from settlement.types import Bytes32

RegistrationId = Annotated[Bytes32, Path()]
OwnKeyId = Annotated[KeyId, Path()]
Position = Annotated[str | None, Query(pattern=r"^[0-9]{1,12}\.0x[0-9a-f]{64}$")]
router = APIRouter(prefix="/v1")


@router.get("/hub", tags=["hub"])
def info(hub: TheHub, _caller: Caller) -> HubInfo:
    """The deployment that this hub is for, and what it takes."""
    return hub.info


@router.post("/session/challenge", status_code=201, tags=["session"])
def challenge(hub: TheHub, _stranger: Stranger, request: SignInRequest) -> SignInChallenge:
    """The EIP-4361 message for a wallet to sign."""
    return hub.access.challenge(request.address)


@router.post("/session", status_code=201, tags=["session"])
def sign_in(hub: TheHub, _stranger: Stranger, request: SignIn, response: Response) -> Session:
    """Sign in by a signed message. The session is in a cookie; its CSRF token is in the answer."""
    token, session = hub.access.sign_in(request)
    site = hub.access.sessions.site
    response.set_cookie(
        site.cookie,
        token,
        max_age=session.expires_at - hub.access.now(),
        path="/",
        secure=site.secure,
        httponly=True,
        samesite="strict",
    )
    response.headers["cache-control"] = "no-store"
    return session


@router.get("/session", tags=["session"])
def session(hub: TheHub, _caller: Caller, token: SessionToken, response: Response) -> Session:
    """Who is signed in, and the CSRF token for what this page changes."""
    found = hub.access.session(token) if token is not None else None
    if found is None:
        raise Unauthorized
    response.headers["cache-control"] = "no-store"
    return found


@router.delete("/session", status_code=204, tags=["session"])
def sign_out(hub: TheHub, principal: Known, token: SessionToken, response: Response) -> None:
    """End the session."""
    if token is None or principal.wallet is None:
        raise Unauthorized
    hub.access.sign_out(token, principal)
    response.delete_cookie(hub.access.sessions.site.cookie, path="/")


@router.get("/registrations", tags=["registrations"])
def registration_terms(hub: TheHub, _caller: Caller) -> RegistrationTerms:
    """What registering here takes."""
    return hub.access.registration_terms()


@router.post("/registrations", status_code=201, tags=["registrations"])
def register(hub: TheHub, principal: Caller, request: RegistrationRequest) -> Registration:
    """Register a developer, by an identity proof or by a session of its wallet."""
    return hub.access.register(request, principal)


@router.get("/registrations/{registration_id}", tags=["registrations"])
def registration(hub: TheHub, _caller: Caller, registration_id: RegistrationId) -> Registration:
    """Where a registration stands, for whoever knows its id."""
    return hub.access.registration(registration_id)


@router.post("/registrations/{registration_id}/answer", tags=["registrations"])
def answer(
    hub: TheHub, principal: Caller, registration_id: RegistrationId, answered: Answer
) -> Registration:
    """Answer what the operator asked."""
    return hub.access.answer(registration_id, answered.text, principal)


@router.get("/keys", tags=["keys"])
def keys(hub: TheHub, manager: Manager) -> tuple[KeyView, ...]:
    """The asker's API keys, the newest first, without their secrets."""
    return hub.access.keys(manager)


@router.post("/keys", status_code=201, tags=["keys"])
def issue_key(hub: TheHub, manager: Manager, request: KeyRequest, response: Response) -> NewKey:
    """A new API key, which this answer alone shows."""
    response.headers["cache-control"] = "no-store"
    return hub.access.issue_key(request, manager)


@router.post("/keys/{key_id}/rotation", status_code=201, tags=["keys"])
def rotate_key(
    hub: TheHub, manager: Manager, key_id: OwnKeyId, rotation: KeyRotation, response: Response
) -> NewKey:
    """Another key in this one's place, which ends after the overlap."""
    response.headers["cache-control"] = "no-store"
    return hub.access.rotate_key(key_id, rotation, manager)


@router.delete("/keys/{key_id}", tags=["keys"])
def revoke_key(hub: TheHub, manager: Manager, key_id: OwnKeyId) -> KeyView:
    """Have a key count no more."""
    return hub.access.revoke_key(key_id, manager)


@router.get("/audit", tags=["audit"])
def audit(
    hub: TheHub,
    principal: Known,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    limit: Limit = 50,
) -> AuditTrail:
    """Who did what, the newest first: a developer's own affairs, or to an operator all."""
    if principal.role not in (Role.DEVELOPER, Role.OPERATOR):
        raise WrongRole(Role.DEVELOPER)
    principal.check_scope(Scope.READ)
    return hub.access.audit(principal, before, limit)


@router.get("/operator/registrations", tags=["operator"])
def registrations(
    hub: TheHub,
    _operator: Operator,
    state: RegistrationState | None = None,
    after: Position = None,
    limit: Limit = 50,
) -> Registrations:
    """The review queue, the oldest first."""
    return hub.access.registrations(state, after, limit)


@router.post("/operator/registrations/{registration_id}/decision", tags=["operator"])
def decide(
    hub: TheHub, operator: Operator, registration_id: RegistrationId, decision: Decision
) -> Registration:
    """Approve, ask, or reject, with the reason that the applicant reads."""
    return hub.access.decide(registration_id, decision, operator)
