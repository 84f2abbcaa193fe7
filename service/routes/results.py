"""What a job has measured and kept."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import JSONResponse, Response

from service.artifacts import send
from service.errors import InvalidSpec
from service.present import (
    checkpoints_view,
    metrics_view,
    worst_documents,
    worst_tokens,
    worst_windows,
)
from service.routes.wiring import Book, Configured, JobId, Limit, Stored
from service.schemas.gate import GateResult
from service.schemas.result import DocumentScore, Result, TokenScore, WindowScore
from service.schemas.views import Artifact, CheckpointView, Metrics, Page
from service.scopes import Scope, needs

router = APIRouter(tags=["results"])
READ = needs(Scope.JOBS_READ)

Worst = Page[TokenScore] | Page[DocumentScore] | Page[WindowScore]
WORST: dict[str, Callable[[dict[str, Any], int | None, int], Worst]] = {
    "token": worst_tokens,
    "document": worst_documents,
    "window": worst_windows,
}
Group = Annotated[Literal["token", "document", "window"], Query()]
Document = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Index of a document.")]
Names = Annotated[str | None, Query(max_length=1000, description="Series, comma-separated.")]


@router.get("/jobs/{job_id}/metrics", operation_id="job_metrics", openapi_extra=READ)
def job_metrics(job_id: JobId, store: Stored, names: Names = None) -> Metrics:
    return metrics_view(store.metrics(job_id, names.split(",") if names else None))


@router.get("/jobs/{job_id}/checkpoints", operation_id="job_checkpoints", openapi_extra=READ)
def job_checkpoints(job_id: JobId, store: Stored) -> Page[CheckpointView]:
    return checkpoints_view(store.checkpoints(job_id))


@router.get(
    "/jobs/{job_id}/result",
    response_model=Result | GateResult,
    operation_id="job_result",
    openapi_extra=READ,
)
def job_result(job_id: JobId, store: Stored, book: Book) -> Response:
    """409 `not_finished` while there is none, with `Retry-After`. Of a gate: what decided it."""
    # As it was stored: a result of an earlier version need not have today's fields.
    body, job = store.result(job_id), store.job(job_id)
    return JSONResponse(body if job.type == "gate" else {**body, **book.residual(job)})


@router.get("/jobs/{job_id}/tokens", operation_id="job_tokens", openapi_extra=READ)
def job_tokens(
    job_id: JobId,
    store: Stored,
    group: Group = "token",
    document: Document = None,
    limit: Limit = 50,
) -> Worst:
    """What was forgotten: tokens, windows or documents with the largest KL first."""
    if group != "token" and store.job(job_id).type == "gate":
        raise InvalidSpec("a gate keeps the worst of its tokens only", param="group")
    return WORST[group](store.result(job_id), document, limit)


@router.get("/jobs/{job_id}/artifacts", operation_id="job_artifacts", openapi_extra=READ)
def job_artifacts(job_id: JobId, store: Stored) -> Page[Artifact]:
    kept = [Artifact.model_validate(artifact) for artifact in store.artifacts(job_id)]
    return Page(data=kept, has_more=False)


@router.get(
    "/jobs/{job_id}/artifacts/{name:path}",
    operation_id="job_artifact",
    openapi_extra=READ,
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, 206: {"description": "Range"}},
)
def job_artifact(
    job_id: JobId,
    name: Annotated[str, Path(max_length=1024)],
    store: Stored,
    settings: Configured,
    range_: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """One file, by the name that the list has. A single byte range is honoured."""
    return send(store, settings, job_id, name, range_)
