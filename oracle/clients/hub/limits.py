"""ASGI middleware that bounds request bodies before anything reads them."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracle.clients.hub.errors import BodyTooLarge
from oracle.clients.hub.problems import of_error


class BodyLimit:
    """Refuses a body above `limit_of(path)` bytes, declared or counted as it streams."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await of_error(BodyTooLarge(limit))(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > limit:
                raise BodyTooLarge(limit)
            return message

        await self._app(scope, counted, send)
