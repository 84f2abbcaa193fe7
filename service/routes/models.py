"""May jobs use this base here, and will it fit?"""

from typing import Annotated

from fastapi import APIRouter, Query

from service.examine import Question, examine
from service.footprint import Dtype
from service.routes.wiring import Configured
from service.schemas.fields import Name, Revision
from service.schemas.models import ModelCheck
from service.schemas.spec import MAX_CONTEXT, MAX_RANK
from service.scopes import Scope, needs

router = APIRouter(tags=["models"])


@router.get("/models/check", operation_id="check_model", openapi_extra=needs(Scope.JOBS_READ))
def check_model(
    settings: Configured,
    model: Annotated[Name, Query(description="Hub id, or name under a model root.")],
    revision: Annotated[Revision | None, Query()] = None,
    dtype: Annotated[Dtype, Query()] = "bfloat16",
    rank: Annotated[int, Query(ge=1, le=MAX_RANK)] = 16,
    max_length: Annotated[int, Query(ge=2, le=MAX_CONTEXT, description="Tokens of a row.")] = 512,
    gpu_bytes: Annotated[
        int | None, Query(ge=1, le=10**15, description="To hold the estimates against.")
    ] = None,
) -> ModelCheck:
    """200 whatever the answer: a refusal is a line of it, with what mends it."""
    asked = Question(model, revision, dtype, rank, max_length, gpu_bytes)
    return examine(asked, settings)
