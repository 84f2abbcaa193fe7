"""Replies that are not a success, as errors. Anything may stand before the service (a proxy, a
wrong port), so nothing is taken for granted about such a body."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from forgetting_client.errors import ServiceError, UnexpectedReply, of_code


def error_of(response: httpx2.Response) -> ServiceError | UnexpectedReply:
    """The error that a read response with a status other than 2xx stands for."""
    status = response.status_code
    if status < 400:
        target = response.headers.get("location", "elsewhere")
        return UnexpectedReply(
            f"{_place(response)} answered {status} and points to {target}; "
            "give that address as the server."
        )
    problem = _problem(response)
    code, detail = problem.get("code"), problem.get("detail")
    if not isinstance(code, str) or not code:
        code = f"http_{status}"
    if not isinstance(detail, str) or not detail:
        detail = (
            f"{_place(response)} answered {status} {response.reason_phrase}".rstrip()
            + ", but not with a problem as the forgetting service would."
        )
    errors, details = problem.get("errors"), problem.get("details")
    return of_code(code, status)(
        detail,
        status=status,
        code=code,
        param=_text(problem.get("param")),
        request_id=_text(problem.get("request_id")) or response.headers.get("x-request-id"),
        errors=[e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else None,
        details=details if isinstance(details, dict) else None,
        retry_after=retry_after(response),
    )


def json_of(response: httpx2.Response) -> Any:
    """The JSON body of a success; UnexpectedReply where there is none."""
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        kind = response.headers.get("content-type", "no content type")
        raise UnexpectedReply(
            f"{_place(response)} answered {response.status_code} with {kind}, not with JSON; "
            "is this a forgetting service?"
        ) from None


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds asked for by `Retry-After`, which is a number or an HTTP date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _place(response: httpx2.Response) -> str:
    url = response.request.url
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))
