"""One server, and how patiently it is asked. Every request of the client goes through here."""

import itertools
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from forgetting_client import __version__
from forgetting_client.errors import (
    ForgettingError,
    ServiceError,
    UnexpectedReply,
    Unreachable,
    Unsendable,
)
from forgetting_client.problem import error_of, json_of

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with jitter. `attempts` counts the first try too."""

    attempts: int = 5
    first_wait: float = 0.25
    longest_wait: float = 8.0
    longest_retry_after: float = 60.0
    """A server that asks for more patience than this is reported at once."""
    reconnects: int = 20
    """Broken event streams in a row before a follower gives up: about two minutes."""

    def wait(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1)."""
        full = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 30))
        return full * random.uniform(0.5, 1.0)  # so that many clients do not return in step


class Connection:
    """An HTTP client with a base address, a key and a retry policy."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry: Retry | None = None,
        transport: httpx2.BaseTransport | None = None,
        notice: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = _address(base_url or os.environ.get("FORGETTING_URL", "").strip() or DEFAULT_URL)
        key = (api_key or os.environ.get("FORGETTING_API_KEY", "")).strip()
        agent = f"forgetting-client/{__version__} python/{platform.python_version()}"
        headers = {"User-Agent": agent, "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {header('The API key', key)}"
        self.retry = retry or Retry()
        self.notice = notice or (lambda message: None)
        self.sleep = sleep
        self.url = str(url).rstrip("/")
        self.http = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=5.0),
            transport=transport,
            # A proxy from the environment can never reach this machine's own loopback.
            trust_env=url.host not in LOOPBACK,
        )

    def close(self) -> None:
        self.http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        attempts: int | None = None,
    ) -> httpx2.Response:
        """A successful response, after as many tries as it takes.

        `repeatable=False`: sent again only where the first try cannot have had an effect.
        `attempts`: other than the policy's.
        """

        def once() -> httpx2.Response:
            response = self.http.request(
                method, path, params=_present(params), json=body, headers=headers
            )
            if not response.is_success:
                raise error_of(response)
            return response

        return self.retrying(once, repeatable=repeatable, attempts=attempts)

    def json(self, method: str, path: str, **options: Any) -> Any:
        return json_of(self.send(method, path, **options))

    def object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """As `json`, where only a JSON object will do."""
        body = self.json(method, path, **options)
        if not isinstance(body, dict):
            raise UnexpectedReply(
                f"{self.url}/{path} answered with a JSON {type(body).__name__}, not an object; "
                "is this a forgetting service?"
            )
        return body

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx2.Response]:
        """A successful response whose body is read by the caller. One try."""
        with self.http.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                raise error_of(response)
            yield response

    def retrying(
        self, call: Callable[[], T], *, repeatable: bool = True, attempts: int | None = None
    ) -> T:
        """`call()`, again after faults that pass: no connection, 429, 502, 503, 504."""
        for attempt in itertools.count(1):
            try:
                return call()
            except httpx2.RequestError as fault:
                error: ForgettingError = self.unreachable(fault)
                again = repeatable or isinstance(fault, NEVER_SENT)
                wait = self.retry.wait(attempt)
            except ServiceError as fault:
                error = fault
                again = fault.status in (429, 503) or (repeatable and fault.status in (502, 504))
                wait = self.retry.wait(attempt)
                if fault.retry_after is not None:
                    wait = max(wait, fault.retry_after)
                    again = again and fault.retry_after <= self.retry.longest_retry_after
            if not again or attempt >= (attempts or self.retry.attempts):
                raise error
            self.notice(f"{error} Trying again{later(wait)}.")
            self.sleep(wait)
        raise AssertionError("unreachable")

    def unreachable(self, fault: httpx2.RequestError) -> Unreachable:
        """The fault in words, without the library's own vocabulary."""
        if isinstance(fault, httpx2.ConnectTimeout):
            what = "did not accept a connection in time"
        elif isinstance(fault, httpx2.TimeoutException):
            what = "did not answer in time"
        elif isinstance(fault, httpx2.ConnectError):
            what = "cannot be reached"
        else:
            what = "broke the connection"
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(fault))
        return Unreachable(f"The server at {self.url} {what}" + (f": {reason}." if reason else "."))


def header(name: str, value: str) -> str:
    """`value`, which may be secret, if a header can carry it."""
    if not value or not value.isascii() or not value.isprintable():
        raise Unsendable(f"{name} must be printable ASCII characters.")
    return value


def later(wait: float) -> str:
    """A wait that people notice is worth its number; short ones all read the same."""
    return f" in {wait:.0f} s" if wait >= 5 else ""


def _present(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _address(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text.strip().rstrip("/") + "/")
    except httpx2.InvalidURL as fault:
        raise Unsendable(f"{text!r} is not a server address: {fault}.") from None
    if url.scheme not in {"http", "https"} or not url.host or not 0 < (url.port or 80) < 65536:
        raise Unsendable(
            f"{text!r} is not a server address; write it with its scheme, like {DEFAULT_URL}."
        )
    if url.username or url.password:
        raise Unsendable("A key does not belong in the address; set FORGETTING_API_KEY instead.")
    return url
