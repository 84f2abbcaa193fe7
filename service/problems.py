"""Errors as RFC 9457 problems. `TABLE` is the one map from error class to status and title."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from service import errors, logs
from service.errors import ForgettingError
from service.field_faults import first, listing
from service.schemas.views import ProblemKind

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Shape(NamedTuple):
    status: int
    title: str


TABLE: dict[type[ForgettingError], Shape] = {
    errors.InvalidSpec: Shape(422, "A field's value cannot work"),
    errors.ModelUnavailable: Shape(422, "Base model unavailable"),
    errors.DatasetUnreadable: Shape(422, "Dataset unreadable"),
    errors.CorpusUnreadable: Shape(422, "Corpus unreadable"),
    errors.PathNotAllowed: Shape(422, "Path outside the allowed roots"),
    errors.AdapterUnreadable: Shape(422, "Adapter unreadable"),
    errors.TrainingDiverged: Shape(422, "Training diverged"),
    errors.EngineUnavailable: Shape(422, "Scoring engine unavailable"),
    errors.TooFewPoints: Shape(422, "Too few points for a law"),
    errors.IdempotencyKeyReused: Shape(422, "Idempotency key reused with another body"),
    errors.NotFound: Shape(404, "Not found"),
    errors.NotFinished: Shape(409, "Not finished"),
    errors.NotResumable: Shape(409, "Not resumable"),
    errors.StillRunning: Shape(409, "Still running"),
    errors.AdapterInUse: Shape(409, "Adapter in use"),
    errors.PayloadTooLarge: Shape(413, "Payload too large"),
    errors.LeaseLost: Shape(409, "Lease lost"),
    errors.Unauthorized: Shape(401, "Unauthorized"),
    errors.InsufficientScope: Shape(403, "The key lacks a scope"),
    errors.QuotaExceeded: Shape(403, "Over the owner's quota"),
    errors.TooManyJobs: Shape(429, "Too many jobs at once"),
    errors.RateLimited: Shape(429, "Too many requests"),
    errors.SystemFault: Shape(503, "System fault"),
}

PROTOCOL: dict[int, str] = {
    400: "malformed_json",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    500: "internal_error",
    503: "not_ready",
}
"""Codes of what HTTP itself refuses, by status."""


def install(app: FastAPI) -> None:
    app.add_exception_handler(ForgettingError, on_forgetting_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)


def shape_of(error: type[ForgettingError]) -> Shape:
    """The nearest class in `TABLE`; a class that nobody listed is our fault, hence 500."""
    return next((TABLE[kind] for kind in error.__mro__ if kind in TABLE), Shape(500, "Error"))


def kinds() -> list[ProblemKind]:
    """Every problem that the service may answer with."""
    ours = [
        ProblemKind(code=e.code, status=s.status, title=s.title, meaning=e.__doc__ or "")
        for e, s in TABLE.items()
    ]
    known = {kind.code for kind in ours}
    http = [
        ProblemKind(
            code=code,
            status=status,
            title=HTTPStatus(status).phrase,
            meaning=HTTPStatus(status).description,
        )
        for status, code in PROTOCOL.items()
        if code not in known
    ]
    return ours + http


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    title: str | None = None,
    param: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    request_id = scope.get("state", {}).get("request_id", "")
    body = {
        "type": f"/v1/problems/{code}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": scope.get("path", ""),
        "code": code,
        "param": param,
        "request_id": request_id,
        "errors": list(errors),
        "details": dict(details or {}),
    }
    return JSONResponse(
        _printable(body),
        status,
        headers={"x-request-id": request_id, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def of_error(scope: Scope, error: ForgettingError) -> JSONResponse:
    shape = shape_of(type(error))
    headers = {}
    if isinstance(error, errors.NotFinished | errors.SystemFault):
        headers["Retry-After"] = "2"
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.details["retry_after"])
    if isinstance(error, errors.TooManyJobs):
        headers["Retry-After"] = "60"
    if isinstance(error, errors.PayloadTooLarge):
        headers["Connection"] = "close"
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(
        scope,
        shape.status,
        error.code,
        error.message,
        title=shape.title,
        param=error.param,
        details=error.details,
        headers=headers,
    )


async def on_forgetting_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ForgettingError)
    if shape_of(type(error)).status >= 500:
        log.error("%s", error.message, exc_info=error)
    return of_error(request.scope, error)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """422 with every fault's place and message. Inputs are never echoed: NaN is not JSON."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        reason = f"not JSON: {faults[0]['ctx']['error']} at character {faults[0]['loc'][-1]}"
        return problem(request.scope, 400, PROTOCOL[400], reason)
    listed = listing(faults, error.body)
    param, said = first(listed)
    return problem(
        request.scope,
        422,
        errors.InvalidSpec.code,
        said,
        title=TABLE[errors.InvalidSpec].title,
        param=param or None,
        errors=listed,
    )


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, detail = PROTOCOL.get(error.status_code, f"http_{error.status_code}"), error.detail
    headers = error.headers
    if isinstance(error.__cause__, RecursionError):
        detail = "JSON is nested too deeply"
    elif isinstance(error.__cause__, UnicodeDecodeError):
        detail = "JSON is not UTF-8"
    elif error.status_code == 404:
        detail = f"no such path: {request.url.path}"
    elif error.status_code == 405:
        headers = {"Allow": ", ".join(allowed_methods(request))}
        detail = f"{request.method} is not allowed here; there is {headers['Allow']}"
    return problem(request.scope, error.status_code, code, detail, headers=headers)


def allowed_methods(request: Request) -> list[str]:
    """Of every route with this path; the framework names those of the first one only."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def on_unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope.get("state", {}).get("request_id", "")
    # Starlette hands this over outside our middleware, where the id is no longer set.
    token = logs.request_id.set(request_id or None)
    log.error("%s failed", request.url.path, exc_info=error)
    logs.request_id.reset(token)
    said = "the service failed; its log has more under this request id"
    return problem(request.scope, 500, PROTOCOL[500], said)


def _printable(value: Any) -> Any:
    """Without lone surrogates, which UTF-8 cannot carry, and without NaN, which JSON cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    if isinstance(value, Mapping):
        return {_printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
