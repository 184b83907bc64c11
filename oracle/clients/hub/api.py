"""The hub over HTTP. Errors are problem documents, API keys bearer tokens, sessions cookies."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from oracle.client import Problem
from oracle.clients.hub import problems
from oracle.clients.hub.callers import Hub, TheHub
from oracle.clients.hub.console import routes as console
from oracle.clients.hub.console.pages import ROOT, STATIC, PageHeaders
from oracle.clients.hub.files import MAX_BYTES
from oracle.clients.hub.limits import BodyLimit
from oracle.clients.hub.routes import access, catalogue, jobs, uploads
from settlement.bundle import MAX_ARCHIVE_BYTES

MAX_JSON_BYTES = MAX_ARCHIVE_BYTES * 4 // 3 + 2**20  # base64, and room for the rest of a request

health = APIRouter(tags=["health"])


class Background(Protocol):
    """Something that works beside the requests, such as `background.Follower`."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def _limit_of(path: str) -> int:
    if "/artifacts/" in path:
        return max(MAX_BYTES.values())
    return MAX_ARCHIVE_BYTES if path.startswith("/v1/uploads/") else MAX_JSON_BYTES


def create_app(hub: Hub, background: Sequence[Background] = ()) -> FastAPI:
    """The hub's API; it closes the service when it shuts down."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for part in background:
            part.start()
        yield
        for part in background:
            part.stop()
        hub.service.close()

    app = FastAPI(
        title="Rapha hub",
        version="1",
        lifespan=lifespan,
        responses={"default": {"model": Problem, "description": "problem+json"}},
    )
    app.state.hub = hub
    app.add_middleware(BodyLimit, limit_of=_limit_of)
    app.add_middleware(problems.InternalErrors)
    app.add_middleware(PageHeaders)
    problems.install(app)
    for router in (
        health,
        access.router,
        catalogue.router,
        uploads.router,
        jobs.router,
        jobs.nodes,
    ):
        app.include_router(router)
    app.include_router(console.root)
    app.mount(f"{ROOT}/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(console.router)
    problems.document(app)
    return app


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz", responses={503: {}})
def readyz(hub: TheHub) -> JSONResponse:
    """Whether the database and the oracle answer, so that jobs can be taken."""
    checks = hub.service.readiness()
    ready = all(checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)
