"""Bounds on requests, before anything reads them: how often, how long, how slow, and by whom."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracle.errors import ApiKeyRefused, BodyTooLarge, BodyTooSlow, RateLimited
from oracle.keys import PREFIX, ApiKey, ApiKeys
from oracle.messages import MAX_RECEIPTS
from oracle.rates import Rate, address_of
from settlement.errors import RaphaError

MAX_BODY = 64 * 1024
"""Bytes: evidence with the longest quote fits twice."""

MAX_EVIDENCE = 640 * 1024
"""Bytes, where evidence may bring a TPM's event log (256 KiB, in hex)."""

LONGER_BODIES = {
    "/v1/receipts/batch": MAX_RECEIPTS * 1024,
    "/v1/attestations": MAX_EVIDENCE,
    "/v1/committee/": MAX_EVIDENCE,
}
"""Bytes, by how a path begins, where honest bodies are longer: a receipt has about 500."""

BODY_TIMEOUT = 15.0
"""Seconds in which a body has to be here."""

Refuse = Callable[[RaphaError, Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class AccessPolicy:
    """Who may ask, and how often; rates are written as the `limits` library has them.

    Each receipt of a batch counts, so `per_key` and `per_address` must allow a whole batch.
    """

    key_required: bool = False
    per_key: str = "120000/minute"
    per_address: str = "6000/minute"


class RateLimits:
    """Counts per API key and per client address, in this process."""

    def __init__(self, policy: AccessPolicy) -> None:
        self._per_key = Rate(policy.per_key)
        self._per_address = Rate(policy.per_address)

    def charge(self, key: ApiKey | None, address: str, cost: int = 1) -> None:
        """Count a request, by its key if it has one.

        Raises:
            RateLimited: when that is too much; it is not counted then.
        """
        rate, who = (self._per_key, key.key_id) if key else (self._per_address, address)
        pause = rate.hit(who, cost)
        if pause is not None:
            raise RateLimited(str(rate), pause)


def limit_of(path: str) -> int:
    """The longest body that a path takes, bytes."""
    longer = (limit for begin, limit in LONGER_BODIES.items() if path.startswith(begin))
    return next(longer, MAX_BODY)


class AccessControl:
    """ASGI middleware: finds out whose API key a request under `/v1/` has, and counts it.

    The key, or None, is in the request's state as `api_key`, and `charge` to count more. Operators
    among each other have a token of their own, and are counted by address.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, rates: RateLimits, refuse: Refuse) -> None:
        self._app = app
        self._keys = keys
        self._rates = rates
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            address = address_of(scope)
            try:
                key = await self._key(scope)
                if scope["path"].startswith("/v1/"):
                    self._rates.charge(key, address)
            except (ApiKeyRefused, RateLimited) as refusal:
                await self._refuse(refusal, scope, receive, send)
                return

            def charge(cost: int) -> None:
                self._rates.charge(key, address, cost)

            scope.setdefault("state", {}).update(api_key=key, charge=charge)
        await self._app(scope, receive, send)

    async def _key(self, scope: Scope) -> ApiKey | None:
        if scope["path"].startswith("/v1/committee/"):
            return None  # there the operators' own token counts, whatever it looks like
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not token.strip().startswith(PREFIX):
            return None
        token = token.strip()
        known = self._keys.remembered(token)
        if known is None:
            try:
                known = await run_in_threadpool(self._keys.identify, token)
            except ApiKeyRefused:
                self._rates.charge(None, address_of(scope))
                raise
        return known


class BodyLimit:
    """ASGI middleware: reads a body of its route's length in time; `refuse` answers others."""

    def __init__(self, app: ASGIApp, refuse: Refuse, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._refuse = refuse
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body read, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout):
                body = await _read(receive, limit_of(scope["path"]), scope)
        except BodyTooLarge as refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        except TimeoutError:
            await self._refuse(BodyTooSlow(self._timeout), scope, receive, send)
            return
        if body is None:
            return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)


async def _read(receive: Receive, limit: int, scope: Scope) -> bytes | None:
    """The body, None when the client has gone. Raises BodyTooLarge."""
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise BodyTooLarge(limit)
    return bytes(body)
