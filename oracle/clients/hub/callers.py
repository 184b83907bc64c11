"""Who a request is by, and what it is for: the dependencies of every route."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from oracle.clients.hub.access import Access
from oracle.clients.hub.errors import NotYourNode, Unauthorized
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.service import HubService
from oracle.clients.hub.uploads import Uploads
from oracle.clients.hub.wakeups import Wakeups
from oracle.rates import address_of
from settlement.hub.account import HubInfo, Role, Scope
from settlement.hub.market import MAX_PAGE
from settlement.types import Bytes32

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Hub:
    """What the routes work with."""

    service: HubService
    access: Access
    uploads: Uploads
    wakeups: Wakeups
    info: HubInfo
    poll: float = 2.0
    """Seconds after which a waiting node looks for itself, whoever wakes it."""


JobId = Annotated[Bytes32, Path()]
NodeId = Annotated[int, Path(gt=0, lt=2**64)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


# What only looks at what is there is awaited: each plain function costs a turn of the thread pool,
# and every request comes by several.


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(_hub)]


async def session_token(request: Request, hub: TheHub) -> str | None:
    """The session cookie that came along."""
    return request.cookies.get(hub.access.sessions.site.cookie)


SessionToken = Annotated[str | None, Depends(session_token)]


def caller(
    request: Request, hub: TheHub, credentials: Bearer, token: SessionToken
) -> Principal | None:
    """Who asks, by API key or by session; None for a stranger. Each request is counted."""
    access, address = hub.access, address_of(request.scope)
    principal: Principal | None = None
    if credentials is not None:
        try:
            principal = access.by_key(credentials.credentials)
        except Unauthorized:
            access.charge(None, address)
            raise
    elif token is not None:
        principal = access.by_session(token)
        if principal is not None and request.method not in _SAFE:
            headers = request.headers
            access.sessions.check_csrf(token, headers.get("x-csrf-token"), headers.get("origin"))
    access.charge(principal, address)
    return principal


def stranger(request: Request, hub: TheHub) -> None:
    """For signing in, whoever asks; counted by address, and taken from this hub's pages alone."""
    hub.access.charge(None, address_of(request.scope))
    hub.access.sessions.check_origin(request.headers.get("origin"))


Stranger = Annotated[None, Depends(stranger)]
Caller = Annotated[Principal | None, Depends(caller)]


async def _known(principal: Caller) -> Principal:
    if principal is None:
        raise Unauthorized
    return principal


Known = Annotated[Principal, Depends(_known)]


def needs(role: Role, scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the caller is of this role, and may do this."""

    async def check(principal: Known) -> Principal:
        principal.check(role, scope)
        return principal

    return check


async def _reader(principal: Known) -> Principal:
    principal.check_scope(Scope.READ)
    return principal


async def _manager(principal: Known) -> Principal:
    principal.check_scope(Scope.MANAGE)
    return principal


Reader = Annotated[Principal, Depends(_reader)]
Manager = Annotated[Principal, Depends(_manager)]
ReadingDeveloper = Annotated[Principal, Depends(needs(Role.DEVELOPER, Scope.READ))]
Developer = Annotated[Principal, Depends(needs(Role.DEVELOPER, Scope.SUBMIT))]
Node = Annotated[Principal, Depends(needs(Role.NODE, Scope.WORK))]
Operator = Annotated[Principal, Depends(needs(Role.OPERATOR, Scope.OPERATE))]


async def _own_node(principal: Node, node_id: NodeId) -> Principal:
    if principal.subject != str(node_id):
        raise NotYourNode(node_id)
    return principal


OwnNode = Annotated[Principal, Depends(_own_node)]
