"""How routes reach what `create_app` was given. What only looks something up is `async`: a plain
function would be sent to a thread of its own."""

import re
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from service.admission import admit
from service.auth import caller
from service.broker import Bell
from service.errors import InvalidSpec
from service.keys import Caller
from service.lawbook import Lawbook
from service.quota import require_affordable
from service.schemas.spec import Spec
from service.settings import Settings
from service.store import Access, JobRow, Store

METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)


def seen(request: Request) -> Store:
    """The store as the caller may see it."""
    whole: Store = request.app.state.store
    return whole.seen_by(caller(request).access(request.app.state.settings))


async def store_of(request: Request) -> Store:
    return seen(request)


async def caller_of(request: Request) -> Caller:
    return caller(request)


async def settings_of(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


async def ring_of(request: Request) -> Bell:
    found: Bell = request.app.state.ring
    return found


async def lawbook_of(request: Request) -> Lawbook:
    """Over the caller's points and laws only."""
    whole: Lawbook = request.app.state.lawbook
    return whole.over(seen(request))


async def metadata_filter(request: Request) -> dict[str, str]:
    """`metadata[key]=value` from the query. A name that is no filter is refused, not ignored."""
    found: dict[str, str] = {}
    known = {"limit", "after", "status", "type", "base_model", "sweep"}
    for name, value in request.query_params.multi_items():
        match = METADATA.fullmatch(name)
        if match is not None:
            found[match[1]] = value
        elif name not in known:
            said = f"no filter {name[:64]}; there are {', '.join(sorted(known))}, metadata[key]"
            raise InvalidSpec(said, param=name[:64])
    return found


def queue_once(
    store: Store,
    settings: Settings,
    spec: Spec,
    idempotency_key: str | None,
    caller: Caller,
) -> tuple[JobRow, bool]:
    """Admit and queue; True: the key had made this job before, so nothing is asked again."""
    if idempotency_key is not None:
        earlier = store.job_of_key(idempotency_key, spec)
        if earlier is not None:
            return earlier, True
    admitted = admit(spec, settings, jobs=store.seen_by(Access.of_job(caller.owner)))
    require_affordable(admitted, caller, settings)
    return store.add_job(admitted, idempotency_key=idempotency_key)


def wake(store: Store, ring: Bell, row: JobRow) -> None:
    """One ring; for a sweep one per idle worker, since its children may start on all of them."""
    n_rings = 1
    if row.type == "sweep":
        n_idle = sum(worker.state == "idle" for worker in store.living_workers())
        n_rings = max(1, min(n_idle, sum(store.children(row.id).values())))
    for _ in range(n_rings):
        ring(row.id)


def accept(
    response: Response, store: Store, ring: Bell, row: JobRow, *, replayed: bool, location: str
) -> None:
    """What a 202 says; a job that was not there before is rung for."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        wake(store, ring, row)
    response.headers["Location"] = location


def located(status: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: this answer says where what it made is to be had."""
    where = {"required": True, "description": "Path.", "schema": {"type": "string"}}
    return {status: {"headers": {"Location": where}}}


Called = Annotated[Caller, Depends(caller_of)]
Stored = Annotated[Store, Depends(store_of)]
Configured = Annotated[Settings, Depends(settings_of)]
Ring = Annotated[Bell, Depends(ring_of)]
Book = Annotated[Lawbook, Depends(lawbook_of)]
MetadataFilter = Annotated[dict[str, str], Depends(metadata_filter)]
JobId = Annotated[str, Path(max_length=64, examples=["job_01JQ0000000000000000000000"])]
LawId = Annotated[str, Path(max_length=64, examples=["law_01JQ0000000000000000000000"])]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=64, description="Id of the last item seen.")]
