"""API keys: read from a secret file, kept as keyed hashes, compared in constant time."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, ValidationError, model_validator

from oracle.clients.hub.errors import (
    KeysFileMalformed,
    ScopeMissing,
    Unauthorized,
    WrongRole,
)
from settlement.hub.account import KeyView, Name, Role, Scope
from settlement.types import Frozen

_HASH_KEY_BYTES = 32


SCOPES: dict[Role, frozenset[Scope]] = {
    Role.DEVELOPER: frozenset({Scope.READ, Scope.SUBMIT, Scope.MANAGE}),
    Role.NODE: frozenset({Scope.READ, Scope.WORK}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.OPERATE, Scope.MANAGE}),
    Role.APPLICANT: frozenset(),
}
"""All that a role can be allowed; a key may be for less."""

SESSION = "session"
PREFIX = "rapha_hub_"
"""By which a key that leaked can be found."""


@dataclass(frozen=True)
class Principal:
    """Who is asking: a developer or operator by name, a node by its id, an applicant by its wallet.

    `via` is the id of the key, or "session", or how else it comes; a session is of a `wallet`.
    """

    role: Role
    subject: str
    scopes: frozenset[Scope] = field(default=frozenset(), compare=False)
    via: str = field(default="hub", compare=False)
    wallet: str | None = field(default=None, compare=False)

    @property
    def tenant(self) -> str | None:
        """The developer whose affairs these are."""
        return self.subject if self.role is Role.DEVELOPER else None

    def check(self, role: Role, scope: Scope) -> None:
        """Raises WrongRole or ScopeMissing when the call is not for this principal."""
        if self.role is not role:
            raise WrongRole(role)
        self.check_scope(scope)

    def check_scope(self, scope: Scope) -> None:
        """Raises ScopeMissing when key or session are not for this."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)


HUB = Principal(Role.OPERATOR, "hub")
"""What happens by itself."""


@dataclass(frozen=True)
class KeyRecord:
    """A key as kept: its 32-byte hash, for whom it speaks, and what it is for. Unix seconds."""

    digest: bytes
    role: Role
    subject: str
    key_id: str
    label: str
    scopes: frozenset[Scope]
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None

    def counts(self, now: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def view(self) -> KeyView:
        """What its owner may see."""
        return KeyView(
            key_id=self.key_id,
            label=self.label,
            scopes=tuple(sorted(self.scopes)),
            created_at=self.created_at,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
        )


ApiKey = Annotated[SecretStr, Field(min_length=32, max_length=256)]
NodeName = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,19}$")]


class KeysFile(Frozen):
    """Keys by name, and of nodes by their id. A key is a random 256-bit text."""

    developers: dict[Name, ApiKey]
    nodes: dict[NodeName, ApiKey]
    operators: dict[Name, ApiKey] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> "KeysFile":
        parties = (self.developers, self.nodes, self.operators)
        keys = [key.get_secret_value() for party in parties for key in party.values()]
        if len(set(keys)) != len(keys):
            raise ValueError("two parties share one key")
        return self

    def records(self, hash_key: bytes) -> tuple[KeyRecord, ...]:
        """Every key, hashed."""
        parties = [
            (Role.DEVELOPER, self.developers),
            (Role.NODE, self.nodes),
            (Role.OPERATOR, self.operators),
        ]
        return tuple(
            record_of(key.get_secret_value(), hash_key, role, subject, label="from the keys file")
            for role, keys in parties
            for subject, key in keys.items()
        )


def load_keys(path: Path) -> KeysFile:
    """Read a file of API keys.

    Raises:
        KeysFileMalformed: when it is missing or is not such a file; it quotes nothing from it.
    """
    try:
        return KeysFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise KeysFileMalformed(f"the keys file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(sorted({fault["msg"] for fault in error.errors()}))
        # Unchained: pydantic's own text repeats the input, and here that is a secret.
        raise KeysFileMalformed(f"the keys file {path} is malformed: {faults}") from None


def load_hash_key(path: Path) -> bytes:
    """The 32-byte key of the hashes; made, for this user only, when there is none yet.

    Raises:
        KeysFileMalformed: when the file holds anything else.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != _HASH_KEY_BYTES:
            raise KeysFileMalformed(f"{path} does not hold {_HASH_KEY_BYTES} bytes") from None
        return key
    key = os.urandom(_HASH_KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


def hash_api_key(key: str, hash_key: bytes) -> bytes:
    """A key's 32-byte BLAKE2b under the hub's own key."""
    return hashlib.blake2b(
        key.encode(), key=hash_key, digest_size=32, person=b"rapha.hub.key.v1"
    ).digest()


def make_api_key() -> str:
    """A fresh key: 256 random bits behind the hub's prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def record_of(
    key: str,
    hash_key: bytes,
    role: Role,
    subject: str,
    *,
    label: str,
    scopes: frozenset[Scope] | None = None,
    now: int = 0,
    expires_at: int | None = None,
) -> KeyRecord:
    """What is kept of a key; without `scopes` it may do all that its role can."""
    digest = hash_api_key(key, hash_key)
    return KeyRecord(
        digest=digest,
        role=role,
        subject=subject,
        # of the hash, so that it tells nothing of the key
        key_id=hashlib.blake2b(digest, digest_size=8, person=b"rapha.key.id").hexdigest(),
        label=label,
        scopes=SCOPES[role] if scopes is None else scopes,
        created_at=now,
        expires_at=expires_at,
    )


class KeyRing:
    """Tells who a bearer token belongs to."""

    def __init__(
        self,
        lookup: Callable[[bytes], KeyRecord | None],
        hash_key: bytes,
        clock: Callable[[], int],
    ) -> None:
        """`lookup` finds a record by its hash. The hash is keyed, so that how long it takes to find
        one tells nothing about keys."""
        self._lookup = lookup
        self._hash_key = hash_key
        self._clock = clock

    def identify(self, token: str) -> Principal:
        """The party whose key `token` is.

        Raises:
            Unauthorized: when it is nobody's, or counts no more.
        """
        digest = hash_api_key(token, self._hash_key)
        record = self._lookup(digest)
        if record is None or not hmac.compare_digest(record.digest, digest):
            raise Unauthorized
        if not record.counts(self._clock()):
            raise Unauthorized
        return Principal(record.role, record.subject, record.scopes, via=record.key_id)
