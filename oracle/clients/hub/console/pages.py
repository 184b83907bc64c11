"""How a page is answered: who sees it, what an error looks like, and what a browser may load."""

import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import structlog
from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ConnectionScope

from oracle.clients.hub.callers import Caller, Hub, SessionToken, TheHub
from oracle.clients.hub.console import words
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.problems import of_error
from settlement.errors import RaphaError
from settlement.hub.account import Role, Scope, Session

ROOT = "/console"
STATIC = Path(__file__).parent / "static"
HEADERS = {
    # Nothing inline, nothing from elsewhere. Wallets announce their icons as data: URLs.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
NAVIGATION: dict[Role | None, tuple[tuple[str, str], ...]] = {
    None: (),
    Role.APPLICANT: (("account", "Account"), ("earnings", "Hospital")),
    Role.DEVELOPER: (
        ("jobs", "Jobs"),
        ("catalogue", "Catalogue"),
        ("balance", "Balance"),
        ("account", "Account"),
        ("earnings", "Hospital"),
    ),
    Role.OPERATOR: (
        ("operator", "Review"),
        ("operator/nodes", "Nodes"),
        ("catalogue", "Catalogue"),
        ("jobs", "Jobs"),
        ("account", "Account"),
    ),
}
HOME = {Role.APPLICANT: "account", Role.DEVELOPER: "jobs", Role.OPERATOR: "operator"}

log = structlog.get_logger("rapha.hub")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("oracle.clients.hub.console"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    # Files of another release have another address, so that no browser mixes the two.
    content = b"".join((STATIC / name).read_bytes() for name in ("console.js", "console.css"))
    environment.globals["release"] = hashlib.sha256(content).hexdigest()[:12]
    return environment


TEMPLATES = _environment()


class NotSignedIn(Exception):
    """A page for those who are signed in."""


class NotForYou(Exception):
    """A page for another role than the asker's."""

    def __init__(self, needed: Role, role: Role) -> None:
        waits = needed is Role.DEVELOPER and role is Role.APPLICANT
        super().__init__(
            "It opens once your registration is approved; your account says how far that is."
            if waits
            else f"It is a {needed}'s, and this wallet is a {role}'s."
        )


class Page(APIRoute):
    """A route whose errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            return await _explained(request, handle)

        return handled


async def _explained(
    request: Request, handle: Callable[[Request], Awaitable[Response]]
) -> Response:
    try:
        return await handle(request)
    except NotSignedIn:
        return _to_sign_in(request)
    except NotForYou as error:
        return failure(request, 403, "This page is not open to you", str(error))
    except RequestValidationError:
        return failure(request, 404, "No such page", "The address is not one of this hub's.")
    except RaphaError as error:
        status = of_error(error).status_code
        title = "Not now" if status >= 500 else "That does not work"
        return failure(request, status, title, str(error))


def _to_sign_in(request: Request) -> Response:
    target = f"{ROOT}/?next={quote(request.url.path)}"
    if "hx-request" in request.headers:  # a part of a page: have the whole page go there
        return Response(status_code=204, headers={"hx-redirect": f"{ROOT}/"})
    return RedirectResponse(target, status_code=303)


def failure(request: Request, status: int, title: str, detail: str) -> Response:
    """A page that says what is wrong; for htmx, which asks for a part of one, the words alone."""
    headers = {"cache-control": "no-store"}
    if "hx-request" in request.headers:
        return PlainTextResponse(f"{title}: {detail}", status, headers)
    page = TEMPLATES.get_template("failure.html").render(
        title=title, detail=detail, session=None, navigation=(), hub=None, here=""
    )
    return HTMLResponse(page, status, headers)


class Reader:
    """Who looks at a page: the session of a wallet, and what it may do."""

    def __init__(self, request: Request, hub: Hub, principal: Principal, session: Session) -> None:
        self.request = request
        self.hub = hub
        self.principal = principal
        self.session = session

    def needs(self, role: Role) -> None:
        """Raises NotForYou for those of another role."""
        if self.principal.role is not role:
            raise NotForYou(role, self.principal.role)

    def needs_reading(self) -> None:
        """Raises NotForYou for those who may not look at catalogue and jobs (yet)."""
        if Scope.READ not in self.principal.scopes:
            raise NotForYou(Role.DEVELOPER, self.principal.role)

    def show(self, name: str, **values: Any) -> HTMLResponse:
        """A template with these values."""
        return show(self.request, self.hub, name, self.session, **values)


def reader(request: Request, hub: TheHub, principal: Caller, token: SessionToken) -> Reader:
    """The session that a page is for. Raises NotSignedIn without one."""
    session = hub.access.session(token) if token is not None else None
    if session is None or principal is None or principal.wallet is None:
        raise NotSignedIn
    return Reader(request, hub, principal, session)


Signed = Annotated[Reader, Depends(reader)]


def show(
    request: Request, hub: Hub, name: str, session: Session | None, **values: Any
) -> HTMLResponse:
    """A page of this hub."""
    here = request.url.path.removeprefix(f"{ROOT}/")
    page = TEMPLATES.get_template(name).render(
        session=session,
        navigation=NAVIGATION[session.role if session is not None else None],
        hub=hub.info,
        here=here,
        now=hub.access.now(),
        **values,
    )
    return HTMLResponse(page, headers={"cache-control": "no-store"})


class PageHeaders:
    """ASGI middleware: what a browser may do with the console's answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        console = scope["type"] == "http" and scope["path"].startswith(ROOT)
        await self._app(scope, receive, sending if console else send)
