"""Who may use the hub: registrations and their review, sessions, API keys. Free of HTTP."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from oracle.clients.hub.access_store import AccessStore, OpenSession
from oracle.clients.hub.errors import (
    ProofNeeded,
    RateLimited,
    RegistrationClosed,
    ScopeMissing,
    WalletTaken,
)
from oracle.clients.hub.identity import Identities
from oracle.clients.hub.keys import (
    SCOPES,
    SESSION,
    KeyRing,
    Principal,
    make_api_key,
    record_of,
)
from oracle.clients.hub.sessions import Sessions
from oracle.rates import Rate
from settlement.hub.account import (
    AuditTrail,
    Decision,
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
    Session,
    SignIn,
    SignInChallenge,
    Step,
)
from settlement.types import to_hex

_STEPS: dict[str, Step] = {
    "approve": Step.APPROVED,
    "ask": Step.ASKED,
    "reject": Step.REJECTED,
}

Registering = Literal["closed", "proof", "wallet"]
"""Whether developers may register: not at all, by an identity proof, or by a session (EIP-4361)
with or without one. Whoever registers is reviewed before it may do anything."""

log = structlog.get_logger("rapha.hub")


@dataclass(frozen=True)
class AccessPolicy:
    """How often each party may ask (as the `limits` library writes it), who operates the hub by
    wallet, and how registering goes."""

    per_party: str = "6000/minute"
    per_address: str = "600/minute"
    operators: frozenset[str] = frozenset()
    registering: Registering = "closed"


class Access:
    """Finds out who asks, and decides who may."""

    def __init__(
        self,
        store: AccessStore,
        keys: KeyRing,
        sessions: Sessions,
        hash_key: bytes,
        *,
        identities: Identities | None,
        policy: AccessPolicy,
        clock: Callable[[], int],
    ) -> None:
        self.sessions = sessions
        self.policy = policy
        self._store = store
        self._keys = keys
        self._hash_key = hash_key
        self._identities = identities
        self._clock = clock
        self._per_party = Rate(policy.per_party)
        self._per_address = Rate(policy.per_address)

    def now(self) -> int:
        """Unix seconds."""
        return self._clock()

    # Who asks

    def by_key(self, token: str) -> Principal:
        """Whose API key this is. Raises Unauthorized."""
        return self._keys.identify(token)

    def by_session(self, token: str) -> Principal | None:
        """Whose session this is; None when it has ended."""
        session = self.sessions.find(token)
        return self._principal(session.wallet) if session is not None else None

    def charge(self, principal: Principal | None, address: str) -> None:
        """Count a request, by who asks or else by its address.

        Raises:
            RateLimited: when that is too much; it is not counted then.
        """
        rate, who = (
            (self._per_party, f"{principal.role}:{principal.subject}")
            if principal is not None
            else (self._per_address, address)
        )
        pause = rate.hit(who)
        if pause is not None:
            raise RateLimited(str(rate), pause)

    def _principal(self, wallet: str) -> Principal:
        role, subject = Role.APPLICANT, wallet
        if wallet in self.policy.operators:
            role = Role.OPERATOR
        else:
            known = self._store.registration_of(wallet)
            if known is not None and known.state is RegistrationState.APPROVED:
                role, subject = Role.DEVELOPER, known.name
        return Principal(role, subject, SCOPES[role], via=SESSION, wallet=wallet)

    # Sessions

    def challenge(self, address: str) -> SignInChallenge:
        """The message with which a wallet signs in."""
        return self.sessions.challenge(address)

    def sign_in(self, request: SignIn) -> tuple[str, Session]:
        """A session for the wallet that signed, and the token of its cookie. Raises SignInRefused,
        ChainUnavailable."""
        token, opened = self.sessions.open(request)
        principal = self._principal(opened.wallet)
        self._store.note(principal, opened.created_at, "sign-in", opened.wallet)
        return token, self._session(token, opened, principal)

    def session(self, token: str) -> Session | None:
        """What a session is, to its own page."""
        opened = self.sessions.find(token)
        if opened is None:
            return None
        return self._session(token, opened, self._principal(opened.wallet))

    def sign_out(self, token: str, by: Principal) -> None:
        """End a session now."""
        self.sessions.end(token)
        self._store.note(by, self._clock(), "sign-out", by.wallet or by.subject)

    def _session(self, token: str, opened: OpenSession, principal: Principal) -> Session:
        known = self._store.registration_of(opened.wallet)
        return Session(
            wallet=opened.wallet,
            role=principal.role,
            name=principal.subject if principal.role is Role.DEVELOPER else None,
            scopes=tuple(sorted(principal.scopes)),
            registration_id=known.registration_id if known is not None else None,
            csrf_token=self.sessions.csrf_token(token),
            expires_at=opened.expires_at,
        )

    # Registrations

    def registration_terms(self) -> RegistrationTerms:
        """What registering takes. RegistrationClosed where none is taken."""
        self._require_open()
        required = self.policy.registering == "proof"
        if self._identities is None:
            return RegistrationTerms(proof_required=required)
        return self._identities.terms.model_copy(update={"proof_required": required})

    def register(self, request: RegistrationRequest, by: Principal | None) -> Registration:
        """Keep a developer's registration for review; the same one again gets the same answer.

        Raises:
            RegistrationClosed: when this hub takes none.
            ProofNeeded: when neither a proof nor a session says whose the wallet is.
            IdentityRefused: by name, when the proof does not count; nothing is kept then.
        """
        self._require_open()
        now, identity = self._clock(), None
        if request.proof is not None and self._identities is not None:
            identity = self._identities.verify(
                request.provider, request.proof, wallet=request.wallet, now=now
            )
        elif self.policy.registering == "proof":
            raise ProofNeeded("an identity proof; GET /v1/registrations says which")
        elif by is None or by.wallet is None:
            raise ProofNeeded("a session of its wallet: POST /v1/session/challenge")
        elif by.wallet != request.wallet:
            raise ProofNeeded(f"a session of wallet {request.wallet}, not of {by.wallet}")
        if request.wallet in self.policy.operators:
            raise WalletTaken(request.wallet)
        registration = self._store.add_registration(
            Registration(
                registration_id=secrets.token_bytes(32),
                name=request.name,
                company=request.company,
                wallet=request.wallet,
                profile=request.profile,
                provider=identity.provider if identity else None,
                site=identity.site if identity else None,
                template=identity.template if identity else None,
                state=RegistrationState.PENDING,
                proven_at=identity.issued_at if identity else None,
                requested_at=now,
                decided_at=None,
            ),
            identity,
            by or Principal(Role.APPLICANT, request.wallet, via="proof"),
        )
        log.info("registration", name=registration.name, state=registration.state)
        return registration

    def registration(self, registration_id: bytes) -> Registration:
        """A registration, to whoever knows its id: that is told to nobody but who registered."""
        return self._store.registration(registration_id)

    def answer(self, registration_id: bytes, text: str, by: Principal | None) -> Registration:
        """Answer the operator's question, knowing the registration's id.

        Raises:
            RegistrationUnknown: when there is none by that id.
            NotUnderReview: when nothing was asked.
        """
        known = self._store.registration(registration_id)
        by = by or Principal(Role.APPLICANT, known.wallet, via="registration")
        return self._store.review(registration_id, Step.ANSWERED, text, by, self._clock())

    def registrations(
        self, state: RegistrationState | None, after: str | None, limit: int
    ) -> Registrations:
        """A page of the review queue, the oldest first."""
        position = (-1, "")
        if after is not None:
            at, _, key = after.partition(".")
            position = (int(at), key)
        found = self._store.registrations(state, after=position, limit=limit + 1)
        page = found[:limit]
        more = len(found) > limit
        last = f"{page[-1].requested_at}.{to_hex(page[-1].registration_id)}" if more else None
        return Registrations(registrations=page, next=last)

    def decide(self, registration_id: bytes, decision: Decision, by: Principal) -> Registration:
        """Approve, ask, or reject; the reason is the applicant's to read.

        Raises:
            RegistrationUnknown, NotUnderReview, NameTaken: see `AccessStore.review`.
        """
        step = _STEPS[decision.action]
        decided = self._store.review(registration_id, step, decision.reason, by, self._clock())
        log.info("registration reviewed", name=decided.name, state=decided.state, by=by.subject)
        return decided

    def _require_open(self) -> None:
        if self.policy.registering == "closed":
            raise RegistrationClosed

    # API keys

    def keys(self, by: Principal) -> tuple[KeyView, ...]:
        """The asker's keys, without their secrets."""
        return tuple(record.view for record in self._store.api_keys(by.role, by.subject))

    def issue_key(self, request: KeyRequest, by: Principal) -> NewKey:
        """A new key for the asker, which this answer alone shows.

        Raises:
            ScopeMissing: for a scope that the asker does not have itself.
            TooManyKeys: when there are as many as one party may hold.
        """
        for scope in sorted(request.scopes - by.scopes):
            raise ScopeMissing(scope)
        now, api_key = self._clock(), make_api_key()
        record = record_of(
            api_key,
            self._hash_key,
            by.role,
            by.subject,
            label=request.label,
            scopes=request.scopes,
            now=now,
            expires_at=now + request.lifetime if request.lifetime is not None else None,
        )
        self._store.issue_key(record, by, now)
        return NewKey(key=record.view, api_key=api_key)

    def rotate_key(self, key_id: str, rotation: KeyRotation, by: Principal) -> NewKey:
        """Another key in the place of one of the asker's, with the same label, scopes and end.

        Raises:
            KeyUnknown: when it is not one of the asker's that counts.
            ScopeMissing: when it may do more than the asker.
        """
        now, api_key = self._clock(), make_api_key()
        fresh = record_of(api_key, self._hash_key, by.role, by.subject, label="", now=now)
        record = self._store.rotate_key(key_id, fresh, by, now, overlap=rotation.overlap)
        return NewKey(key=record.view, api_key=api_key)

    def revoke_key(self, key_id: str, by: Principal) -> KeyView:
        """Have one of the asker's keys count no more.

        Raises:
            KeyUnknown: when it is not one of the asker's.
        """
        return self._store.revoke_key(key_id, by, self._clock()).view

    # The audit trail

    def audit(self, by: Principal, before: int | None, limit: int) -> AuditTrail:
        """What was done, the newest first: to an operator all, to a developer its own affairs."""
        tenant = None if by.role is Role.OPERATOR else by.subject
        entries = self._store.audit(tenant, before=before, limit=limit + 1)
        page = entries[:limit]
        more = len(entries) > limit
        return AuditTrail(entries=page, next=str(page[-1].entry_id) if more else None)
