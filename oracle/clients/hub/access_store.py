"""Durable registrations, keys, sessions and the audit trail. Each method is one transaction."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.database import Tables
from oracle.clients.hub.errors import (
    AlreadyRegistered,
    KeyUnknown,
    NameTaken,
    NotUnderReview,
    RegistrationRaced,
    RegistrationUnknown,
    ScopeMissing,
    TooManyKeys,
    WalletTaken,
)
from oracle.clients.hub.identity import Identity, refuse_taken
from oracle.clients.hub.keys import KeyRecord, Principal
from oracle.clients.hub.tables import api_keys, audit, challenges, registrations, sessions
from settlement.hub.account import (
    AuditEntry,
    CompanyProfile,
    Registration,
    RegistrationState,
    ReviewEntry,
    Role,
    Scope,
    Step,
)
from settlement.types import to_hex

MAX_KEYS = 32
"""API keys that one party may have in use."""


@dataclass(frozen=True)
class OpenSession:
    """A session as kept. Times are Unix seconds."""

    wallet: str
    created_at: int
    expires_at: int


_STATES = {
    Step.ASKED: RegistrationState.ASKED,
    Step.ANSWERED: RegistrationState.PENDING,
    Step.APPROVED: RegistrationState.APPROVED,
    Step.REJECTED: RegistrationState.REJECTED,
}
_OPEN = (RegistrationState.PENDING, RegistrationState.ASKED)
_FROM = {
    Step.ASKED: _OPEN,
    Step.ANSWERED: (RegistrationState.ASKED,),
    # An approved one can be approved again (for another key) and be ended.
    Step.APPROVED: (*_OPEN, RegistrationState.APPROVED),
    Step.REJECTED: (*_OPEN, RegistrationState.APPROVED, RegistrationState.REJECTED),
}


def note(
    tx: Connection,
    by: Principal,
    now: int,
    action: str,
    target: str,
    *,
    tenant: str | None = None,
    **detail: Any,
) -> None:
    """Write who does what into the audit trail, with what is done or not at all."""
    tx.execute(
        insert(audit).values(
            at=now,
            role=by.role,
            actor=by.subject,
            via=by.via,
            tenant=tenant or by.tenant,
            action=action,
            target=target,
            detail=json.dumps(detail) if detail else None,
        )
    )


class AccessStore(Tables):
    """Who may use the hub."""

    # Registrations

    def add_registration(
        self, registration: Registration, identity: Identity | None, by: Principal
    ) -> Registration:
        """Keep a registration, or give the standing one of the same account, name and wallet.

        Raises:
            IdentityTaken: when the account is bound to another wallet.
            AlreadyRegistered, NameTaken, WalletTaken: when something else stands in the way.
            RegistrationRaced: when it came to be so at the same moment.
        """
        nullifier = to_hex(identity.nullifier) if identity else None
        named = select(api_keys.c.subject).where(
            api_keys.c.role == Role.DEVELOPER, api_keys.c.subject == registration.name
        )
        same = or_(
            registrations.c.nullifier == nullifier,
            registrations.c.wallet == registration.wallet,
            registrations.c.name == registration.name,
        )
        try:
            with self.write() as tx:
                known = tx.execute(select(registrations).where(same)).all()
                rows = [row for row in known if row.state != RegistrationState.REJECTED]
                mine = next(
                    (row for row in rows if _same_party(row, registration, nullifier)), None
                )
                if mine is not None:
                    if identity is not None and mine.nullifier == nullifier:
                        refuse_taken(identity, mine.wallet)
                    if mine.name != registration.name:
                        raise AlreadyRegistered(mine.name)
                    return _registration(mine)
                if any(row.wallet == registration.wallet for row in rows):
                    raise WalletTaken(registration.wallet)
                # For good: what a developer did here goes by its name.
                taken = any(
                    row.name == registration.name and row.wallet != registration.wallet
                    for row in known
                )
                if taken or tx.execute(named).first() is not None:
                    raise NameTaken(registration.name)
                tx.execute(
                    insert(registrations).values(
                        **registration.model_dump(mode="json", exclude={"profile", "review"}),
                        profile=registration.profile.model_dump_json()
                        if registration.profile
                        else None,
                        review="[]",
                        nullifier=nullifier,
                        proof_digest=to_hex(identity.digest) if identity else None,
                    )
                )
                target = to_hex(registration.registration_id)
                at = registration.requested_at
                note(tx, by, at, "register", target, tenant=registration.name)
        except IntegrityError as error:
            raise RegistrationRaced from error
        return registration

    def registration(self, registration_id: bytes) -> Registration:
        """A registration.

        Raises:
            RegistrationUnknown: when there is none by that id.
        """
        with self.read() as tx:
            return _registration(self._registered(tx, registration_id, lock=False))

    def registrations(
        self,
        state: RegistrationState | None = None,
        *,
        after: tuple[int, str] = (-1, ""),
        limit: int | None = None,
    ) -> tuple[Registration, ...]:
        """Registrations, the oldest first; those behind `after` (time and id), at most `limit`."""
        at, key = registrations.c.requested_at, registrations.c.registration_id
        query = (
            select(registrations)
            .where(or_(at > after[0], (at == after[0]) & (key > after[1])))
            .order_by(at, key)
            .limit(limit)
        )
        if state is not None:
            query = query.where(registrations.c.state == state)
        with self.read() as tx:
            return tuple(_registration(row) for row in tx.execute(query))

    def registration_of(self, wallet: str) -> Registration | None:
        """A wallet's standing registration; of rejected ones the last, so that it can be read."""
        query = (
            select(registrations)
            .where(registrations.c.wallet == wallet)
            .order_by(
                (registrations.c.state == RegistrationState.REJECTED).asc(),
                registrations.c.requested_at.desc(),
            )
            .limit(1)
        )
        with self.read() as tx:
            row = tx.execute(query).one_or_none()
        return _registration(row) if row is not None else None

    def registration_named(self, name: str) -> Registration | None:
        """The approved registration of a developer; None for those of the keys file."""
        query = select(registrations).where(
            registrations.c.name == name, registrations.c.state == RegistrationState.APPROVED
        )
        with self.read() as tx:
            row = tx.execute(query).one_or_none()
        return _registration(row) if row is not None else None

    def review(
        self, registration_id: bytes, step: Step, text: str, by: Principal, now: int
    ) -> Registration:
        """Take a review one step on. Rejecting revokes every key, and frees name and wallet.

        Raises:
            RegistrationUnknown: when there is none by that id.
            NotUnderReview: when it is not at the point where this step comes.
            NameTaken: when the keys file meanwhile has a developer of that name.
        """
        with self.write() as tx:
            return self._review(tx, registration_id, step, text, by, now)

    def approve(
        self, registration_id: bytes, key: KeyRecord, by: Principal, now: int
    ) -> Registration:
        """Approve a registration and give it this key; earlier keys of it count no more.

        Raises:
            RegistrationUnknown, NotUnderReview, NameTaken: as `review`.
        """
        with self.write() as tx:
            approved = self._review(
                tx, registration_id, Step.APPROVED, "approved by command", by, now
            )
            self._revoke_all(tx, approved.name, now)
            self._insert_key(tx, key, issued=True)
            note(tx, by, now, "key.issue", key.key_id, tenant=approved.name)
            return approved

    def _review(
        self,
        tx: Connection,
        registration_id: bytes,
        step: Step,
        text: str,
        by: Principal,
        now: int,
    ) -> Registration:
        row = self._registered(tx, registration_id)
        if row.state not in _FROM[step]:
            needed = " or ".join(_FROM[step])
            raise NotUnderReview(registration_id, str(row.state), needed)
        if step is Step.APPROVED:
            of_file = select(api_keys.c.digest).where(
                api_keys.c.role == Role.DEVELOPER,
                api_keys.c.subject == row.name,
                api_keys.c.issued == 0,
            )
            if tx.execute(of_file).first() is not None:
                raise NameTaken(str(row.name))
        if step is Step.REJECTED:
            self._revoke_all(tx, str(row.name), now)
        entries = (*_registration(row).review, ReviewEntry(at=now, step=step, text=text))
        decided = step in (Step.APPROVED, Step.REJECTED)
        tx.execute(
            update(registrations)
            .where(registrations.c.registration_id == to_hex(registration_id))
            .values(
                state=_STATES[step],
                review=json.dumps([entry.model_dump(mode="json") for entry in entries]),
                decided_at=now if decided else None,
            )
        )
        note(tx, by, now, f"review.{step}", to_hex(registration_id), tenant=str(row.name))
        return _registration(self._registered(tx, registration_id))

    @staticmethod
    def _registered(
        tx: Connection, registration_id: bytes, *, lock: bool = True
    ) -> Row[tuple[Any, ...]]:
        query = select(registrations).where(
            registrations.c.registration_id == to_hex(registration_id)
        )
        row = tx.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise RegistrationUnknown(registration_id)
        return row

    # API keys

    def replace_api_keys(self, records: Iterable[KeyRecord]) -> None:
        """Know exactly these keys, beside those that were issued."""
        with self.write() as tx:
            tx.execute(delete(api_keys).where(api_keys.c.issued == 0))
            for record in records:
                self._insert_key(tx, record, issued=False)

    def api_key(self, digest: bytes) -> KeyRecord | None:
        """The key with this hash."""
        query = select(api_keys).where(api_keys.c.digest == digest.hex())
        with self.read() as tx:
            row = tx.execute(query).one_or_none()
        return _key(row) if row is not None else None

    def api_keys(self, role: Role | None = None, subject: str = "") -> tuple[KeyRecord, ...]:
        """Every key, or every key of one party; the newest first."""
        query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.key_id)
        if role is not None:
            query = query.where(api_keys.c.role == role, api_keys.c.subject == subject)
        with self.read() as tx:
            return tuple(_key(row) for row in tx.execute(query))

    def issue_key(self, record: KeyRecord, by: Principal, now: int) -> None:
        """Keep a new key.

        Raises:
            TooManyKeys: when its party has `MAX_KEYS` in use.
        """
        with self.write() as tx:
            self._check_room(tx, record, now)
            self._insert_key(tx, record, issued=True)
            scopes = " ".join(sorted(record.scopes))
            note(tx, by, now, "key.issue", record.key_id, scopes=scopes)

    def rotate_key(
        self, key_id: str, replacement: KeyRecord, by: Principal, now: int, *, overlap: int
    ) -> KeyRecord:
        """Put another in a key's place, with its label, scopes and end; the old one counts for
        `overlap` seconds more.

        Raises:
            KeyUnknown: when it is not a key in use of this party, or of the keys file.
            ScopeMissing: when it may do more than who asks.
        """
        with self.write() as tx:
            old = self._own_key(tx, key_id, by)
            if not old.counts(now):
                raise KeyUnknown(key_id)
            for scope in sorted(old.scopes - by.scopes):
                raise ScopeMissing(scope)
            ends = now + overlap if old.expires_at is None else min(now + overlap, old.expires_at)
            tx.execute(update(api_keys).where(api_keys.c.key_id == key_id).values(expires_at=ends))
            new = KeyRecord(
                digest=replacement.digest,
                role=old.role,
                subject=old.subject,
                key_id=replacement.key_id,
                label=old.label,
                scopes=old.scopes,
                created_at=now,
                expires_at=old.expires_at,
            )
            self._insert_key(tx, new, issued=True)
            note(tx, by, now, "key.rotate", key_id, replacement=new.key_id, overlap=overlap)
            return new

    def revoke_key(self, key_id: str, by: Principal, now: int) -> KeyRecord:
        """Have a key count no more; the same again changes nothing.

        Raises:
            KeyUnknown: when it is not a key of this party, or of the keys file.
        """
        with self.write() as tx:
            known = self._own_key(tx, key_id, by)
            if known.revoked_at is None:
                tx.execute(
                    update(api_keys).where(api_keys.c.key_id == key_id).values(revoked_at=now)
                )
                note(tx, by, now, "key.revoke", key_id)
            return self._own_key(tx, key_id, by)

    @staticmethod
    def _own_key(tx: Connection, key_id: str, by: Principal) -> KeyRecord:
        query = select(api_keys).where(
            api_keys.c.key_id == key_id,
            api_keys.c.role == by.role,
            api_keys.c.subject == by.subject,
            api_keys.c.issued == 1,
        )
        row = tx.execute(query.with_for_update()).one_or_none()
        if row is None:
            raise KeyUnknown(key_id)
        return _key(row)

    @staticmethod
    def _check_room(tx: Connection, record: KeyRecord, now: int) -> None:
        in_use = select(func.count()).where(
            api_keys.c.role == record.role,
            api_keys.c.subject == record.subject,
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        )
        if tx.scalars(in_use).one() >= MAX_KEYS:
            raise TooManyKeys(MAX_KEYS)

    @staticmethod
    def _insert_key(tx: Connection, record: KeyRecord, *, issued: bool) -> None:
        tx.execute(
            insert(api_keys).values(
                key_id=record.key_id,
                digest=record.digest.hex(),
                role=record.role,
                subject=record.subject,
                label=record.label,
                scopes=" ".join(sorted(record.scopes)),
                created_at=record.created_at,
                expires_at=record.expires_at,
                revoked_at=record.revoked_at,
                issued=int(issued),
            )
        )

    @staticmethod
    def _revoke_all(tx: Connection, developer: str, now: int) -> None:
        tx.execute(
            update(api_keys)
            .where(
                api_keys.c.role == Role.DEVELOPER,
                api_keys.c.subject == developer,
                api_keys.c.issued == 1,
                api_keys.c.revoked_at.is_(None),
            )
            .values(revoked_at=now)
        )

    # Sessions

    def add_challenge(self, nonce: str, expires_at: int, now: int) -> None:
        """Remember a nonce, and forget those that expired."""
        with self.write() as tx:
            tx.execute(delete(challenges).where(challenges.c.expires_at <= now))
            tx.execute(insert(challenges).values(nonce=nonce, expires_at=expires_at))

    def take_challenge(self, nonce: str, now: int) -> bool:
        """Use a nonce up; False when there is none, or another took it."""
        query = delete(challenges).where(challenges.c.nonce == nonce, challenges.c.expires_at > now)
        with self.write() as tx:
            return tx.execute(query).rowcount == 1

    def add_session(self, digest: str, session: OpenSession) -> None:
        """Keep a session, and forget those that ended."""
        with self.write() as tx:
            tx.execute(delete(sessions).where(sessions.c.expires_at <= session.created_at))
            tx.execute(
                insert(sessions).values(
                    digest=digest,
                    wallet=session.wallet,
                    created_at=session.created_at,
                    expires_at=session.expires_at,
                )
            )

    def session(self, digest: str) -> OpenSession | None:
        """The session whose token has this hash."""
        with self.read() as tx:
            row = tx.execute(select(sessions).where(sessions.c.digest == digest)).one_or_none()
        return OpenSession(row.wallet, row.created_at, row.expires_at) if row is not None else None

    def end_session(self, digest: str) -> None:
        """Forget a session."""
        with self.write() as tx:
            tx.execute(delete(sessions).where(sessions.c.digest == digest))

    # The audit trail

    def note(self, by: Principal, now: int, action: str, target: str, **detail: Any) -> None:
        """Write down what was done elsewhere."""
        with self.write() as tx:
            note(tx, by, now, action, target, **detail)

    def audit(
        self, tenant: str | None, *, before: int | None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """Entries of one tenant, or all, the newest first; those before an entry's id."""
        query = select(audit).order_by(audit.c.entry_id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(audit.c.tenant == tenant)
        if before is not None:
            query = query.where(audit.c.entry_id < before)
        with self.read() as tx:
            return tuple(
                AuditEntry(
                    **{**row._asdict(), "detail": json.loads(row.detail) if row.detail else None}
                )
                for row in tx.execute(query)
            )


def _same_party(row: Row[Any], registration: Registration, nullifier: str | None) -> bool:
    """Whether a standing registration is the asker's: by account, or without one by wallet."""
    if nullifier is not None:
        return bool(row.nullifier == nullifier)
    return bool(row.wallet == registration.wallet)


def _registration(row: Row[Any]) -> Registration:
    values = {name: getattr(row, name) for name in Registration.model_fields}
    values["profile"] = CompanyProfile.model_validate_json(row.profile) if row.profile else None
    values["review"] = json.loads(row.review)
    return Registration.model_validate(values)


def _key(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        digest=bytes.fromhex(row.digest),
        role=Role(row.role),
        subject=row.subject,
        key_id=row.key_id,
        label=row.label,
        scopes=frozenset(Scope(name) for name in row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
