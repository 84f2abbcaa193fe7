"""A job's events as they happen. The stream is picked up where it broke, by `Last-Event-ID`."""

import json
from collections.abc import Iterator
from typing import cast

import httpx2

from forgetting_client.connection import Connection, later
from forgetting_client.errors import ForgettingError, ServiceError, UnexpectedReply
from forgetting_client.problem import error_of
from forgetting_client.wire import TERMINAL, Event

SILENCE = httpx2.Timeout(30.0, connect=5.0, read=60.0)
"""A minute without a byte counts as a broken stream; the service pings more often than that."""


def follow(connection: Connection, job_path: str, *, after: int | None = None) -> Iterator[Event]:
    """Events with id > `after`, each once, up to and with the job's last `done`.

    A job that was resumed has a `done` for every time it ended.
    Broken streams are opened again until `Retry.reconnects` of them in a row brought no
    event; before the first event the ordinary `Retry.attempts` holds.
    """
    retry = connection.retry
    last, opened, broken, quiet = after, False, 0, 0
    attempt: int | None = None
    while True:
        error: ForgettingError | None = None
        asked, fresh = 0.0, 0
        try:
            for sse in _listen(connection, job_path, last):
                if sse.retry is not None:
                    asked = sse.retry / 1000
                if sse.data:
                    event = _event(sse)
                    last, opened, broken, quiet, fresh = event["id"], True, 0, 0, fresh + 1
                    yield event
                    if event["kind"] == "status":
                        attempt = event["data"].get("attempt")
                    if event["kind"] == "done" and _finished(connection, job_path, attempt):
                        return
            # Ended without `done`: a restart, a proxy's time limit, or nothing left to tell.
            if fresh == 0 and _finished(connection, job_path, None):
                return
            quiet += 1
        except httpx2.SSEError as fault:
            raise UnexpectedReply(f"No event stream came from {job_path}: {fault}") from fault
        except httpx2.RequestError as fault:
            error = connection.unreachable(fault)
        except ServiceError as fault:
            if fault.status not in (429, 502, 503, 504):
                raise
            error, asked = fault, fault.retry_after or 0.0
        if error is not None:
            broken += 1
            if broken >= (retry.reconnects if opened else retry.attempts):
                raise error
        wait = max(asked, retry.wait(broken or quiet))
        if error is not None:
            connection.notice(f"{error} Picking the events up again{later(wait)}.")
        connection.sleep(wait)


def _listen(
    connection: Connection, job_path: str, last: int | None
) -> Iterator[httpx2.ServerSentEvent]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with connection.http.sse(f"{job_path}/events", headers=headers, timeout=SILENCE) as source:
        if not source.response.is_success:
            source.response.read()
            raise error_of(source.response)
        yield from source


def _event(sse: httpx2.ServerSentEvent) -> Event:
    try:
        body = json.loads(sse.data)
    except json.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or not {"id", "kind", "data"} <= body.keys():
        raise UnexpectedReply(f"The event stream holds what is not an event: {sse.data[:200]!r}")
    return cast(Event, body)


def _finished(connection: Connection, job_path: str, attempt: int | None) -> bool:
    """Whether the job is at rest, in that very attempt where one is given."""
    job = connection.object("GET", job_path)
    return job.get("status") in TERMINAL and attempt in (None, job.get("attempt"))
