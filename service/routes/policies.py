"""What a policy file may hold."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from service.policy_schema import policy_schema

MEDIA_TYPE = "application/schema+json"

router = APIRouter(tags=["gates"])


@router.get(
    "/policies/schema",
    operation_id="policy_schema",
    response_class=JSONResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}},
)
def show_policy_schema() -> Any:
    """JSON Schema of `forgetting.yml`; name it in an editor for completion and checks."""
    return JSONResponse(policy_schema(), media_type=MEDIA_TYPE)
