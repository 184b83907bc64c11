"""API keys: random, shown once, kept as hashes; and what each may do."""

import base64
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select

from oracle.errors import ApiKeyRefused, ApiKeyUnknown, ScopeMissing
from oracle.store.database import Store
from oracle.store.intake_tables import ApiKeyRow

FRESH = 2.0
"""Seconds for which a key that was looked up counts without looking again: how long a revoked key
still works in a running oracle."""

REMEMBERED = 1_000
"""Keys that are remembered for that long."""

PREFIX = "rapha_"
"""By which a token that leaked can be found, and told from the operators' own."""

_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{16}})_([A-Za-z0-9_-]{{43}})")
_NOBODY = bytes(32)


class Scope(StrEnum):
    """What a key is for: handing in, asking, or what only the operator looks at."""

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. Times are Unix seconds."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    created_at: int
    revoked_at: int | None

    def check(self, scope: Scope) -> None:
        """Raises ScopeMissing when the key is not for this."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)


class ApiKeys:
    """The keys of one database. `elapsed` is a monotonic clock in seconds."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._elapsed = elapsed
        self._known: OrderedDict[str, tuple[float, ApiKey, bytes]] = OrderedDict()
        self._turn = threading.Lock()

    def add(self, name: str, scopes: Collection[Scope]) -> tuple[ApiKey, str]:
        """Make a key: what is kept of it, and the token, which nobody can show again."""
        key_id, secret = secrets.token_hex(8), secrets.token_bytes(32)
        row = ApiKeyRow(
            key_id=key_id,
            name=name,
            digest=hashlib.sha256(secret).digest(),
            scopes=" ".join(sorted(scopes)),
            created_at=self._clock(),
            revoked_at=None,
        )
        with self._store.write() as session:
            session.add(row)
        text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        return _key(row), f"{PREFIX}{key_id}_{text}"

    def all(self) -> list[ApiKey]:
        """All keys there ever were, the oldest first."""
        with self._store.read() as session:
            query = select(ApiKeyRow).order_by(ApiKeyRow.created_at, ApiKeyRow.key_id)
            return [_key(row) for row in session.scalars(query)]

    def revoke(self, key_id: str) -> ApiKey:
        """End a key; one that has ended keeps its time.

        Raises:
            ApiKeyUnknown: when there is none of this id.
        """
        with self._store.write() as session:
            row = session.get(ApiKeyRow, key_id)
            if row is None:
                raise ApiKeyUnknown(key_id)
            if row.revoked_at is None:
                row.revoked_at = self._clock()
        return _key(row)

    def remembered(self, token: str) -> ApiKey | None:
        """The key of a token that was looked up just now, without asking the database."""
        given = _TOKEN.fullmatch(token)
        if given is None:
            return None
        with self._turn:
            looked_up, key, digest = self._known.get(given[1], (0.0, None, _NOBODY))
        if key is None or self._elapsed() - looked_up >= FRESH:
            return None
        return key if hmac.compare_digest(_digest(given[2]), digest) else None

    def identify(self, token: str) -> ApiKey:
        """Whose token this is, as the database has it.

        Raises:
            ApiKeyRefused: when it is nobody's, or that key was revoked.
        """
        given = _TOKEN.fullmatch(token)
        if given is None:
            raise ApiKeyRefused
        with self._store.read() as session:
            row = session.get(ApiKeyRow, given[1])
        # Of a key that does not exist a hash is compared as well: time tells nothing.
        same = hmac.compare_digest(_digest(given[2]), row.digest if row else _NOBODY)
        if row is None or not same or row.revoked_at is not None:
            with self._turn:
                self._known.pop(given[1], None)
            raise ApiKeyRefused
        key = _key(row)
        with self._turn:
            self._known[given[1]] = (self._elapsed(), key, row.digest)
            self._known.move_to_end(given[1])
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return key


def _digest(text: str) -> bytes:
    return hashlib.sha256(base64.urlsafe_b64decode(text + "=")).digest()


def _key(row: ApiKeyRow) -> ApiKey:
    scopes = frozenset(Scope(scope) for scope in row.scopes.split())
    return ApiKey(row.key_id, row.name, scopes, row.created_at, row.revoked_at)
