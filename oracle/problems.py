"""Errors as problem documents (RFC 9457)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from oracle.errors import (
    ApiKeyRefused,
    BodyTooLarge,
    BodyTooSlow,
    EpochMismatch,
    NotKnown,
    NotRelaying,
    PeerTokenRefused,
    RateLimited,
    ScopeMissing,
    StaleChallenge,
    VouchesOtherwise,
)
from oracle.messages import Problem
from settlement.errors import InvalidInput, RaphaError
from settlement.types import to_hex

_STATUS: tuple[tuple[type[RaphaError], HTTPStatus], ...] = (
    (NotKnown, HTTPStatus.NOT_FOUND),
    (PeerTokenRefused, HTTPStatus.UNAUTHORIZED),
    (ApiKeyRefused, HTTPStatus.UNAUTHORIZED),
    (ScopeMissing, HTTPStatus.FORBIDDEN),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (BodyTooSlow, HTTPStatus.REQUEST_TIMEOUT),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (StaleChallenge, HTTPStatus.CONFLICT),
    (EpochMismatch, HTTPStatus.CONFLICT),
    (VouchesOtherwise, HTTPStatus.CONFLICT),
    (NotRelaying, HTTPStatus.CONFLICT),
)

_log = structlog.get_logger(__name__)


def status_for(error: RaphaError) -> HTTPStatus:
    """The HTTP status of an error: 503 for what may pass by itself, 422 for bad input."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    if not error.final:
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, InvalidInput):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.CONFLICT


def problem_of(error: RaphaError) -> Problem:
    """An error's problem document, with the data that the error keeps."""
    status = status_for(error)
    kept = {
        name: _plain(value)
        for name, value in vars(error).items()
        if name[0] != "_" and name not in Problem.model_fields
    }
    return Problem(
        title=status.phrase,
        status=status,
        detail=str(error),
        code=error.code,
        final=error.final,
        **kept,
    )


def respond(problem: Problem) -> Response:
    """A problem document as an HTTP response, with the headers that its status calls for."""
    headers = {}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if "retry_after" in problem.data:
        headers["retry-after"] = str(problem.data["retry_after"])
    return Response(
        problem.model_dump_json(),
        status_code=problem.status,
        headers=headers,
        media_type="application/problem+json",
    )


async def refuse(error: RaphaError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is refused before it reaches its route."""
    await respond(problem_of(error))(scope, receive, send)


def install(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem document."""

    @app.exception_handler(RaphaError)
    def _known(_request: Request, error: RaphaError) -> Response:
        return respond(problem_of(error))

    @app.exception_handler(RequestValidationError)
    def _malformed(_request: Request, error: RequestValidationError) -> Response:
        return respond(malformed(error.errors()))

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        response = respond(_problem(status, str(error.detail), "".join(status.phrase.split())))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(SQLAlchemyError)
    def _store(_request: Request, error: SQLAlchemyError) -> Response:
        _log.error("store failed", exc_info=error)
        detail = f"the store does not answer ({type(error).__name__})"
        return respond(
            _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, "StoreUnavailable", final=False)
        )

    @app.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> Response:
        _log.error("request failed", path=request.url.path, exc_info=error)
        detail = "something went wrong here; the log tells what"
        return respond(
            _problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, "InternalError", final=False)
        )


def malformed(faults: Sequence[Any]) -> Problem:
    """The problem of input that is not shaped as it should be, from pydantic's list of faults."""
    where = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in faults)
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, where, "MalformedRequest")


def _problem(status: HTTPStatus, detail: str, code: str, *, final: bool = True) -> Problem:
    return Problem(title=status.phrase, status=status, detail=detail, code=code, final=final)


def _plain(value: Any) -> str | int | bool | None:
    if isinstance(value, bytes):
        return to_hex(value)
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
