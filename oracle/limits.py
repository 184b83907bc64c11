"""A bound on request bodies, before anything reads them."""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracle.errors import BodyTooLarge

MAX_BODY = 64 * 1024
"""Bytes: evidence with the longest quote fits twice."""

MAX_EVIDENCE = 640 * 1024
"""Bytes, where evidence may bring a TPM's event log (256 KiB, in hex)."""

_EVIDENCE = ("/v1/attestations", "/v1/committee/")


def limit_of(path: str) -> int:
    """The longest body that a path takes, bytes."""
    return MAX_EVIDENCE if path.startswith(_EVIDENCE) else MAX_BODY


class BodyLimit:
    """ASGI middleware: reads a body up to `limit_of(path)` bytes; `refuse` answers longer ones."""

    def __init__(
        self, app: ASGIApp, refuse: Callable[[BodyTooLarge, Scope, Receive, Send], Awaitable[None]]
    ) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body read, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                await self._refuse(BodyTooLarge(limit), scope, receive, send)
                return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)
