"""Adapters of other trainers: upload, list, show, delete. Asynchronous where a body is long."""

from pathlib import Path as Folder
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response

from service.errors import AdapterUnreadable
from service.parts import Part, Parts
from service.present import adapter_view
from service.quota import require_space
from service.routes.wiring import After, Called, Configured, Limit, Stored, located
from service.schemas.views import Adapter, Page
from service.scopes import Scope, needs
from service.uploads import intended, keep, limits, receiving, remove, sweep_uploads

router = APIRouter(tags=["adapters"])
READ = needs(Scope.JOBS_READ)
WRITE = needs(Scope.JOBS_WRITE)

CHUNK_BYTES = 1 << 20
IDLE_SECONDS = 60.0
"""A sender that is silent for so long is not waited for."""

FILE = {"type": "string", "format": "binary"}
FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"adapter_config.json": FILE, "adapter_model.safetensors": FILE},
                    "required": ["adapter_config.json", "adapter_model.safetensors"],
                    "additionalProperties": False,
                }
            }
        },
    }
}

AdapterId = Annotated[str, Path(max_length=64, examples=["adp_01JQ0000000000000000000000"])]
NAME = r"^[^\x00-\x1f]+$"
BaseModel = Annotated[
    str,
    Query(
        min_length=1,
        max_length=512,
        pattern=NAME,
        description="What the adapter was trained on: its tensors must fit this model's.",
        examples=["Qwen/Qwen3-0.6B"],
    ),
]
Revision = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._/-]+$")]
Text = Annotated[str | None, Query(max_length=512)]


@router.post(
    "/adapters",
    status_code=201,
    operation_id="upload_adapter",
    openapi_extra={**FILES, **WRITE},
    responses={
        **located(201),
        200: {
            "description": "This content was there already",
            "model": Adapter,
            **located(200)[200],
        },
    },
)
async def upload_adapter(
    request: Request,
    response: Response,
    store: Stored,
    settings: Configured,
    caller: Called,
    base_model: BaseModel,
    revision: Revision = None,
) -> Adapter:
    """A LoRA adapter as PEFT saves it. The same content for such a base is one adapter: 200."""
    base = await run_sync(intended, base_model, revision, settings)
    await run_sync(sweep_uploads, request.app.state.store, settings)
    await run_sync(require_space, 0, caller, store, settings)
    with receiving(settings) as folder:
        parts = await receive(request, folder, limits(settings))
        n_bytes = sum(part.bytes for part in parts.values())
        await run_sync(require_space, n_bytes, caller, store, settings)
        row, new = await run_sync(keep, store, settings, folder, parts, base)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/adapters/{row.id}"
    return adapter_view(row)


@router.get("/adapters", operation_id="list_adapters", openapi_extra=READ)
def list_adapters(
    store: Stored,
    limit: Limit = 20,
    after: After = None,
    base_model: Text = None,
    digest: Text = None,
) -> Page[Adapter]:
    """Newest first."""
    rows, has_more = store.list_adapters(
        limit=limit, after=after, base_model=base_model, digest=digest
    )
    return Page(data=[adapter_view(row) for row in rows], has_more=has_more)


@router.get("/adapters/{adapter_id}", operation_id="show_adapter", openapi_extra=READ)
def show_adapter(adapter_id: AdapterId, store: Stored) -> Adapter:
    return adapter_view(store.adapter(adapter_id))


@router.delete(
    "/adapters/{adapter_id}", status_code=204, operation_id="delete_adapter", openapi_extra=WRITE
)
def delete_adapter(adapter_id: AdapterId, store: Stored, settings: Configured) -> None:
    """409 `adapter_in_use` while a queued or running job is to measure it."""
    remove(store, settings, adapter_id)


async def receive(
    request: Request,
    folder: Folder,
    sizes: dict[str, int],
    *,
    idle_seconds: float = IDLE_SECONDS,
) -> dict[str, Part]:
    """The body's parts as files in `folder`, at most a chunk of it in memory."""
    with Parts(request.headers.get("content-type", ""), folder, sizes) as parts:
        body, waiting = request.stream(), bytearray()
        more = True
        while more:
            try:
                with anyio.fail_after(idle_seconds):
                    chunk = await anext(body, b"")
            except TimeoutError as error:
                said = f"the upload stood still for {idle_seconds:g} s"
                raise AdapterUnreadable(said) from error
            more = bool(chunk)
            waiting += chunk
            if waiting and (len(waiting) >= CHUNK_BYTES or not more):
                await run_sync(parts.feed, bytes(waiting))
                waiting.clear()
        return parts.finish()
