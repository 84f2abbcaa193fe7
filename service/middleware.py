"""What happens to every request before a route sees it: an id, limits, counting."""

import contextlib
import re
import time
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from service import logs
from service.errors import PayloadTooLarge
from service.meters import Meters
from service.problems import PROTOCOL, problem

UPLOADS = frozenset({("POST", "/adapters"), ("POST", "/v1/adapters")})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
JSON = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
CSV = re.compile(rb"text/csv\s*(?:;|$)", re.IGNORECASE)
TAKES_CSV = ("/laws", "/v1/laws")


class RequestContext:
    """Takes the caller's `x-request-id` or makes one, returns it, and counts the request."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
        scope.setdefault("state", {})["request_id"] = request_id
        said = logs.request_id.set(request_id)
        began, status = time.perf_counter(), 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
            await send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            seconds = time.perf_counter() - began
            self._meters.count(scope["method"], path_template(scope), status, seconds)
            logs.request_id.reset(said)


class Limits:
    """Refuses, before any parsing, what no route could take.

    The body is counted as it arrives: Content-Length may be absent or a lie. Uploads have a limit
    of their own, and are passed on as they come.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self.app, self._max, self._max_upload = app, max_body_bytes, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if b"\0" in unquote_to_bytes(scope["query_string"]) or "\0" in scope["path"]:
            said = "the address has a NUL character"
            await problem(scope, 422, "validation_error", said)(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if (scope["method"], scope["path"]) in UPLOADS:
            await self._upload(scope, receive, send)
            return
        try:
            body = await self._read(headers.get(b"content-length", b""), receive)
        except ClientDisconnect:
            return
        if body is None:
            await self._too_large(scope)(scope, receive, send)
        elif body and not taken(scope, headers.get(b"content-type", b"").strip()):
            said = "send Content-Type: application/json"
            said += " or text/csv" if scope["path"] in TAKES_CSV else ""
            await problem(scope, 415, PROTOCOL[415], said)(scope, receive, send)
        else:
            await self.app(scope, replay(body, receive), send)

    async def _read(self, content_length: bytes, receive: Receive) -> bytes | None:
        """The whole body, or None as soon as it is over the limit."""
        if content_length.isdigit() and int(content_length) > self._max:
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._max:
                return None
        return b"".join(parts)

    def _too_large(self, scope: Scope, limit: int | None = None) -> Response:
        limit = limit or self._max
        said = f"the body is over {limit} bytes"
        details: dict[str, Any] = {"max_body_bytes": limit}
        headers = {"Connection": "close"}
        return problem(scope, 413, PROTOCOL[413], said, details=details, headers=headers)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, limit = dict(scope["headers"]), self._max_upload
        content_length = headers.get(b"content-length", b"")
        if content_length.isdigit() and int(content_length) > limit:
            await self._too_large(scope, limit)(scope, receive, send)
            return
        if not headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/form-data"):
            said = "send Content-Type: multipart/form-data"
            await problem(scope, 415, PROTOCOL[415], said)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise PayloadTooLarge(f"the body is over {limit} bytes", max_body_bytes=limit)
            return message

        with contextlib.suppress(ClientDisconnect):  # nobody is left to be told
            await self.app(scope, counted, send)


def taken(scope: Scope, kind: bytes) -> bool:
    """Whether its body may be read; where no route takes the request at all, that is told first."""
    if JSON.match(kind) or (scope["path"] in TAKES_CSV and CSV.match(kind)):
        return True
    routes = scope["app"].routes
    return not any(route.matches(scope)[0] is Match.FULL for route in routes)


def replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then whatever the server says: a disconnect."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def path_template(scope: Scope) -> str:
    """`/v1/jobs/{job_id}`: bounded, unlike paths."""
    template = getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else "unmatched"
