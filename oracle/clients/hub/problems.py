"""Errors as problem documents (RFC 9457), one place for their HTTP status."""

import sqlite3
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from oracle.client import OracleRefused, OracleUnavailable
from oracle.clients.hub.errors import HubError
from oracle.clients.hub.identity import IdentityRefused, IdentityTaken
from settlement.bundle import BundleRefused
from settlement.errors import RaphaError

log = structlog.get_logger("rapha.hub")


def problem(
    status: int, code: str, detail: str, *, final: bool, data: dict[str, Any] | None = None
) -> JSONResponse:
    """A problem document; `code` is the error's stable name, `data` its further members."""
    members = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "final": final,
    }
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if data and "retry_after" in data:
        headers["retry-after"] = str(data["retry_after"])
    return JSONResponse(
        {**(data or {}), **members}, status, headers, media_type="application/problem+json"
    )


def of_error(error: RaphaError) -> JSONResponse:
    """The problem that an error of this project is to a caller."""
    if isinstance(error, HubError):
        status, data = error.status, error.data
    elif isinstance(error, BundleRefused):
        status, data = 422, error.data
    elif isinstance(error, IdentityRefused):
        # Its data holds nothing personal; that is promised there.
        status, data = 409 if isinstance(error, IdentityTaken) else 422, dict(vars(error))
    elif isinstance(error, OracleUnavailable):
        status, data = 503, {}
    elif isinstance(error, OracleRefused):
        # Under the hub's own name: the caller's request was not what the oracle refused.
        data = {"oracle_code": error.code, "oracle_status": error.status}
        return problem(502, "OracleRefused", str(error), final=error.final, data=data)
    else:
        raise error
    return problem(status, error.code, str(error), final=error.final, data=data)


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    @app.exception_handler(RaphaError)
    async def _on_error(_request: Request, error: RaphaError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    async def _on_busy(_request: Request, error: OperationalError | PoolTimeout) -> JSONResponse:
        # SQLite calls a missing table operational, too: that does not pass by itself.
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise error
        log.warning("store unavailable", reason=type(error).__name__)
        detail = "the hub's database does not answer now; try again"
        return problem(503, "StoreUnavailable", detail, final=False)

    @app.exception_handler(RequestValidationError)
    async def _on_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # Where and what, never the input itself: it may be large, or secret.
        faults = [
            {"at": ".".join(map(str, fault["loc"])), "what": fault["msg"]}
            for fault in error.errors()
        ]
        detail = "; ".join(f"{fault['at']}: {fault['what']}" for fault in faults)
        return problem(422, "InvalidInput", detail, final=True, data={"faults": faults})

    @app.exception_handler(HTTPException)
    async def _on_http(_request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(
            error.__cause__, RaphaError
        ):  # FastAPI's name for whatever a body read raised
            return of_error(error.__cause__)
        code = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
        return problem(error.status_code, code, str(error.detail), final=True)


def document(app: FastAPI) -> None:
    """Have the OpenAPI document say that what is no success is a problem document."""
    generate = app.openapi

    def documented() -> dict[str, Any]:
        if app.openapi_schema is None:  # made when somebody asks: it takes a while
            for path in generate()["paths"].values():
                for operation in path.values():
                    default = operation["responses"]["default"]["content"]
                    default["application/problem+json"] = default.pop("application/json")
        assert app.openapi_schema is not None  # that is where FastAPI keeps it
        return app.openapi_schema

    app.openapi = documented  # type: ignore[method-assign]


class InternalErrors:
    """ASGI middleware: an unexpected error is logged whole and told to nobody."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            log.info("client gone", path=scope.get("path"))
        except Exception:
            log.exception("internal error", path=scope.get("path"))
            if scope["type"] != "http" or started:
                raise
            answer = problem(500, "InternalError", "the hub failed; see its log", final=False)
            await answer(scope, receive, send)
