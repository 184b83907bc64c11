"""API keys: read from a secret file, kept as keyed hashes, compared in constant time."""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, ValidationError, model_validator

from oracle.clients.hub.errors import KeysFileMalformed, Unauthorized
from settlement.types import Frozen

_HASH_KEY_BYTES = 32


class Role(StrEnum):
    """Whose key it is."""

    DEVELOPER = "developer"
    NODE = "node"


@dataclass(frozen=True)
class Principal:
    """Who is asking: a developer by name, or a node by its id."""

    role: Role
    subject: str


@dataclass(frozen=True)
class KeyRecord:
    """A key as kept: its 32-byte hash, and for whom it speaks."""

    digest: bytes
    role: Role
    subject: str


ApiKey = Annotated[SecretStr, Field(min_length=32, max_length=256)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,19}$")]


class KeysFile(Frozen):
    """``{"developers": {name: key}, "nodes": {node id: key}}``; a key is a random 256-bit text."""

    developers: dict[Name, ApiKey]
    nodes: dict[NodeName, ApiKey]

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> "KeysFile":
        keys = [key.get_secret_value() for key in (*self.developers.values(), *self.nodes.values())]
        if len(set(keys)) != len(keys):
            raise ValueError("two parties share one key")
        return self

    def records(self, hash_key: bytes) -> tuple[KeyRecord, ...]:
        """Every key, hashed."""
        parties = [(Role.DEVELOPER, self.developers), (Role.NODE, self.nodes)]
        return tuple(
            KeyRecord(hash_api_key(key.get_secret_value(), hash_key), role, subject)
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


class KeyRing:
    """Tells who a bearer token belongs to."""

    def __init__(
        self, records: Iterable[KeyRecord] | Callable[[], Iterable[KeyRecord]], hash_key: bytes
    ) -> None:
        """`records` are the keys, or give them as they are at each question."""
        self._records = records if callable(records) else tuple(records)
        self._hash_key = hash_key

    def identify(self, token: str) -> Principal:
        """The party whose key `token` is.

        Raises:
            Unauthorized: when it is nobody's.
        """
        digest = hash_api_key(token, self._hash_key)
        found: Principal | None = None
        records = self._records() if callable(self._records) else self._records
        for record in records:  # all of them, always: time tells nothing
            if hmac.compare_digest(record.digest, digest):
                found = Principal(record.role, record.subject)
        if found is None:
            raise Unauthorized
        return found
