"""Is it alive, is it ready, what does it count, and what do its errors mean."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import problems
from service.errors import NotFound
from service.readiness import readiness
from service.routes.wiring import Called, Ring, Stored
from service.schemas.views import Health, ProblemKind, Readiness
from service.scopes import Scope, needs

router = APIRouter(tags=["health"])
OPEN, READ = needs(None), needs(Scope.JOBS_READ)


@router.get("/healthz", operation_id="healthz", openapi_extra=OPEN)
def healthz() -> Health:
    try:
        return Health(version=version("forgetting-service"))
    except PackageNotFoundError:
        return Health(version="unknown")  # run from a checkout that is not installed


@router.get("/readyz", response_model=Readiness, operation_id="readyz", openapi_extra=OPEN)
def readyz(request: Request, store: Stored, ring: Ring) -> Response:
    """503 `not_ready`, with the same checks under `details`, if a job could not run now."""
    found = readiness(store, ring)
    body = found.model_dump(mode="json")
    if found.status == "ready":
        return JSONResponse(body)
    failed = [f"{name}: {check.detail}" for name, check in found.checks.items() if not check.ok]
    return problems.problem(request.scope, 503, "not_ready", "; ".join(failed), details=body)


@router.get("/metrics", operation_id="metrics", openapi_extra=READ, response_class=Response)
def metrics(request: Request, caller: Called) -> Response:
    """Prometheus text; what names owners, for `admin` only."""
    text = request.app.state.meters.text(owners=caller.is_admin)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/problems/{code}", operation_id="problem_kind", openapi_extra=READ)
def problem_kind(code: str) -> ProblemKind:
    """What the `type` of a problem leads to."""
    for kind in problems.kinds():
        if kind.code == code:
            return kind
    raise NotFound(f"no problem has the code {code[:64]}", param="code")
