"""A job's events, as a page or as a stream. Asynchronous, as streams are long."""

import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from service.errors import NotFound, SystemFault
from service.jobs import TERMINAL
from service.present import event_view
from service.routes.wiring import JobId, Stored
from service.schemas.views import Event, Page
from service.scopes import Scope, needs
from service.store import EventRow, Store

router = APIRouter(tags=["jobs"])
READ = needs(Scope.JOBS_READ)

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
BATCH = 500
LARGEST_ID = 2**31 - 1

EventLimit = Annotated[int, Query(ge=1, le=1000)]
AfterEvent = Annotated[int, Query(ge=0, le=LARGEST_ID, description="Id of the last event seen.")]
LastEventId = Annotated[str | None, Header(max_length=64)]


@router.get(
    "/jobs/{job_id}/events",
    response_model=Page[Event],
    operation_id="job_events",
    openapi_extra=READ,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def job_events(
    job_id: JobId,
    store: Stored,
    after: AfterEvent = 0,
    limit: EventLimit = 100,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: LastEventId = None,
) -> Response:
    """A page; with `Accept: text/event-stream` all events as they happen, up to `done`."""
    seen = seen_id(last_event_id, after)
    if "text/event-stream" in accept.lower():
        await run_sync(store.job, job_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventSourceResponse(stream(store, job_id, seen), headers=headers)
    rows = await run_sync(lambda: store.events(job_id, after=seen, limit=limit + 1))
    page = Page[Event](data=[event_view(row) for row in rows[:limit]], has_more=len(rows) > limit)
    return JSONResponse(page.model_dump(mode="json"))


def seen_id(last_event_id: str | None, after: int) -> int:
    """`Last-Event-ID` wins; what is no id of ours counts as nothing seen."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        return min(int(last_event_id), LARGEST_ID)
    return after


async def stream(
    store: Store,
    job_id: str,
    seen: int,
    *,
    poll_seconds: float = POLL_SECONDS,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """Every event after `seen`, until the job is at rest and nothing is left to tell.

    The state is read before the events, so that an end between the two is told in full.
    """
    silent_since = time.monotonic()
    while True:
        try:
            job = await run_sync(store.job, job_id)
            rows = await run_sync(
                lambda after: store.events(job_id, after=after, limit=BATCH), seen
            )
        except (NotFound, SystemFault):
            return  # the status line is sent: whoever asks again is told why
        for row in rows:
            yield message(row)
            seen, silent_since = row.id, time.monotonic()
        if len(rows) == BATCH:
            continue
        if job.state in TERMINAL:
            return
        if time.monotonic() - silent_since >= heartbeat_seconds:
            yield KEEPALIVE_COMMENT
            silent_since = time.monotonic()
        await anyio.sleep(poll_seconds)


def message(row: EventRow) -> bytes:
    data = event_view(row).model_dump_json()
    return format_sse_event(data_str=data, event=row.kind, id=str(row.id))
