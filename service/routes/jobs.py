"""Jobs: submit, list, show, cancel, resume, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from service.artifacts import remove_job
from service.extension import extend
from service.jobs import TERMINAL, JobState
from service.present import job_view
from service.routes.wiring import (
    After,
    Book,
    Called,
    Configured,
    JobId,
    Limit,
    MetadataFilter,
    Ring,
    Stored,
    accept,
    located,
    queue_once,
    wake,
)
from service.schemas.spec import JobSpec
from service.schemas.views import Job, Page
from service.scopes import Scope, needs

router = APIRouter(tags=["jobs"])
READ = needs(Scope.JOBS_READ)
WRITE = needs(Scope.JOBS_WRITE)

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key with the same body gives the same job, however often it is sent.",
    ),
]
JobType = Literal["finetune", "evaluate", "sweep", "gate"]
Text = Annotated[str | None, Query(max_length=512)]


@router.post(
    "/jobs",
    status_code=202,
    response_model=Job,
    operation_id="create_job",
    openapi_extra=WRITE,
    responses=located(202),
)
def create_job(
    spec: JobSpec,
    store: Stored,
    settings: Configured,
    ring: Ring,
    caller: Called,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a job. It is accepted also while no worker lives."""
    row, replayed = queue_once(store, settings, spec, idempotency_key, caller)
    # Written here: FastAPI would check the view once more, in yet another thread.
    said = job_view(row, store).model_dump_json(by_alias=True)
    response = Response(said, 202, media_type="application/json")
    location = f"/v1/jobs/{row.id}"
    accept(response, store, ring, row, replayed=replayed, location=location)
    response.headers["Retry-After"] = "1"
    return response


@router.get("/jobs", operation_id="list_jobs", openapi_extra=READ)
def list_jobs(
    store: Stored,
    metadata: MetadataFilter,
    limit: Limit = 20,
    after: After = None,
    status: JobState | None = None,
    type: JobType | None = None,  # noqa: A002 -- the field's name on the wire
    base_model: Text = None,
    sweep: Text = None,
) -> Page[Job]:
    """Newest first. Besides the parameters shown, `metadata[key]=value` filters."""
    filters = {"status": status, "type": type, "base_model": base_model, "sweep": sweep}
    rows, has_more = store.list_jobs(limit=limit, after=after, metadata=metadata, **filters)
    return Page(data=[job_view(row, store) for row in rows], has_more=has_more)


@router.get("/jobs/{job_id}", operation_id="show_job", openapi_extra=READ)
def show_job(job_id: JobId, store: Stored, book: Book) -> Job:
    row = store.job(job_id)
    return job_view(row, store, book.residual(row))


@router.post("/jobs/{job_id}/cancel", operation_id="cancel_job", openapi_extra=WRITE)
def cancel_job(job_id: JobId, response: Response, store: Stored) -> Job:
    """200: it is at rest. 202: it runs, and its worker has been told to stop."""
    row = store.cancel_job(job_id)
    response.status_code = 200 if row.state in TERMINAL else 202
    return job_view(row, store)


@router.post(
    "/jobs/{job_id}/resume", status_code=202, operation_id="resume_job", openapi_extra=WRITE
)
def resume_job(job_id: JobId, store: Stored, ring: Ring) -> Job:
    """Queue a failed or cancelled job again; it goes on from its last whole checkpoint.

    A sweep at rest, succeeded too: its failed and cancelled children.
    """
    row = store.resume_job(job_id)
    wake(store, ring, row)
    return job_view(row, store)


@router.post(
    "/jobs/{job_id}/extend",
    status_code=202,
    operation_id="extend_job",
    openapi_extra=WRITE,
    responses=located(202),
)
def extend_job(
    job_id: JobId,
    response: Response,
    store: Stored,
    settings: Configured,
    ring: Ring,
    caller: Called,
) -> Job:
    """Go on from a pilot at rest: queue what its whole sweep has yet to measure, as a new job.

    Asked twice it gives the same job.
    """
    row, replayed = extend(store, settings, job_id, caller)
    location = f"/v1/jobs/{row.id}"
    accept(response, store, ring, row, replayed=replayed, location=location)
    return job_view(row, store)


@router.delete("/jobs/{job_id}", status_code=204, operation_id="delete_job", openapi_extra=WRITE)
def delete_job(job_id: JobId, store: Stored, settings: Configured) -> None:
    """A finished job with its result, points and artifacts; a sweep with its children."""
    remove_job(store, settings, job_id)
