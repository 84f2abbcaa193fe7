"""Keys, for holders of `admin`: make, list, revoke."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path

from service.keys import create_key
from service.present import key_view
from service.routes.wiring import Configured, Stored
from service.schemas.keys import Key, NewKey, NewKeyRequest
from service.schemas.views import Page
from service.scopes import Scope, needs

router = APIRouter(tags=["keys"])
ADMIN = needs(Scope.ADMIN)
KeyId = Annotated[str, Path(max_length=64, examples=["key_01JQ0000000000000000000000"])]


@router.post("/keys", status_code=201, operation_id="create_key", openapi_extra=ADMIN)
def new_key(request: NewKeyRequest, store: Stored, settings: Configured) -> NewKey:
    """The key stands in this answer and nowhere else."""
    days = request.expires_in_days
    row, token = create_key(
        store,
        settings,
        owner=request.owner,
        name=request.name,
        scopes=request.scopes,
        lifetime_seconds=None if days is None else timedelta(days=days).total_seconds(),
    )
    return NewKey(**key_view(row).model_dump(), key=token)


@router.get("/keys", operation_id="list_keys", openapi_extra=ADMIN)
def list_keys(store: Stored) -> Page[Key]:
    """Newest first, revoked and expired ones too. No secrets: they are not kept."""
    return Page(data=[key_view(row) for row in store.list_keys()], has_more=False)


@router.delete("/keys/{key_id}", operation_id="revoke_key", openapi_extra=ADMIN)
def revoke_key(key_id: KeyId, store: Stored) -> Key:
    """From now on it opens nothing."""
    return key_view(store.revoke_key(key_id))
