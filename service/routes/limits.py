"""What the caller may use."""

from fastapi import APIRouter

from service.quota import limited
from service.routes.wiring import Called, Configured, Stored
from service.schemas.keys import Limited
from service.scopes import Scope, needs

router = APIRouter(tags=["keys"])


@router.get("/limits", operation_id="show_limits", openapi_extra=needs(Scope.JOBS_READ))
def show_limits(caller: Called, store: Stored, settings: Configured) -> Limited:
    """Limits of the key that asks, and how much of them is used."""
    return limited(caller, store, settings)
