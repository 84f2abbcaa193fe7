"""The web half. `create_app` is handed everything it needs; nothing is global."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI

from service import problems
from service.auth import BearerKey, check_exposure, guard, is_loopback
from service.broker import Bell
from service.document import completed
from service.lawbook import Lawbook
from service.meters import Meters
from service.middleware import Limits, RequestContext
from service.rate import Rate
from service.routes import (
    adapters,
    events,
    gates,
    health,
    jobs,
    keys,
    laws,
    limits,
    models,
    policies,
    results,
)
from service.schemas.views import Problem
from service.settings import Settings
from service.store import Store
from service.sweep import Sweeper
from service.uploads import limits as upload_limits
from service.uploads import sweep_uploads

FRAMING_BYTES = 10_000
"""What stands around the files of an upload."""
PROBLEM: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}}
"""So that the document has its schema; `completed` says the rest."""
NOUNS = (jobs, events, results, gates, policies, adapters, laws, keys, limits, models, health)


def create_app(store: Store, settings: Settings, ring: Bell) -> FastAPI:
    """The service over this store. Raises InvalidSpec when it would be open to a network.

    The caller keeps the store: it is migrated before and disposed of after.
    """
    outside = settings.api_key is None and not is_loopback(settings.host)
    check_exposure(settings, has_keys=outside and store.has_keys())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep_uploads(store, settings)
        ring.start()
        sweeper = Sweeper(store, ring).start()
        try:
            yield
        finally:
            sweeper.stop()
            ring.stop()

    app = Service(
        title="Forgetting",
        summary="How much did a fine-tune make the model forget, and was that to be expected?",
        version="1",
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.store, app.state.settings, app.state.ring = store, settings, ring
    app.state.lawbook, app.state.meters = Lawbook(store), Meters(store)
    held = [Depends(guard)]
    for noun in NOUNS:
        app.include_router(noun.router, prefix="/v1", responses=PROBLEM, dependencies=held)
        app.include_router(noun.router, include_in_schema=False, dependencies=held)
    problems.install(app)
    # The last added is the first to see a request.
    app.add_middleware(
        Limits,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=sum(upload_limits(settings).values()) + FRAMING_BYTES,
    )
    app.add_middleware(BearerKey, store=store, settings=settings, rate=Rate(settings))
    app.add_middleware(RequestContext, meters=app.state.meters)
    return app


class Service(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi())
        return self.openapi_schema
