"""Gates: submit, list, show as JSON, Markdown or JUnit."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.gate_reports import JSON, JUNIT, MARKDOWN, MEDIA, render
from service.gate_views import find_gate, gate_id, job_id, list_gates, show_gate
from service.laws.verdict import Verdict
from service.routes.accept import preferred
from service.routes.jobs import IdempotencyKey
from service.routes.wiring import (
    After,
    Called,
    Configured,
    Limit,
    Ring,
    Stored,
    accept,
    located,
    queue_once,
)
from service.schemas.gate import Gate
from service.schemas.spec import GateSpec
from service.schemas.views import Page
from service.scopes import Scope, needs

router = APIRouter(tags=["gates"])
READ = needs(Scope.JOBS_READ)

GateId = Annotated[
    str,
    Path(
        max_length=64,
        examples=["gate_01JQ0000000000000000000000"],
        description="`gate_…`, or the id of its job, `job_…`.",
    ),
]
REPORTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The gate, or its report where `Accept` asks for one.",
        "content": {media: {"schema": {"type": "string"}} for media in (MARKDOWN, *JUNIT)},
    }
}
MaxBytes = Annotated[
    int,
    Query(
        ge=2_000,
        le=10_000_000,
        description="Of a Markdown report, in UTF-8: details go first, then rows, never the "
        "verdict. A step summary takes 1,024 KiB, a comment 65,536 characters.",
    ),
]


@router.post(
    "/gates",
    status_code=202,
    operation_id="create_gate",
    openapi_extra=needs(Scope.JOBS_WRITE),
    responses=located(202),
)
def create_gate(
    spec: GateSpec,
    response: Response,
    store: Stored,
    settings: Configured,
    ring: Ring,
    caller: Called,
    idempotency_key: IdempotencyKey = None,
) -> Gate:
    """Queue a gate: a job of type `gate` by another name."""
    row, replayed = queue_once(store, settings, spec, idempotency_key, caller)
    location = f"/v1/gates/{gate_id(row.id)}"
    accept(response, store, ring, row, replayed=replayed, location=location)
    response.headers["Retry-After"] = "1"
    return show_gate(store, row)


@router.get("/gates", operation_id="list_gates", openapi_extra=READ)
def list_of_gates(
    store: Stored, limit: Limit = 20, after: After = None, verdict: Verdict | None = None
) -> Page[Gate]:
    """Newest first, without their results."""
    last = None if after is None else job_id(after)
    rows, has_more = store.list_jobs(limit=limit, after=last, type="gate", verdict=verdict)
    return Page(data=list_gates(store, rows), has_more=has_more)


@router.get(
    "/gates/{gate_id}",
    response_model=Gate,
    operation_id="show_gate",
    responses=REPORTS,
    openapi_extra=READ,
)
def show(
    gate_id: GateId, request: Request, store: Stored, max_bytes: MaxBytes = 1_000_000
) -> Response:
    """The verdict once there is one: JSON, or by `Accept` Markdown or JUnit. 406 for others."""
    media = preferred(request.headers.get("accept"), MEDIA)
    gate = show_gate(store, find_gate(store, gate_id))
    body = (
        gate.model_dump_json(by_alias=True)
        if media == JSON
        else render(gate.model_dump(mode="json", by_alias=True), media, max_bytes=max_bytes)
    )
    return Response(body, media_type=media, headers={"Vary": "Accept"})
