"""The Celery task is a shell over `perform`, which runs without Celery.

A ring's job id is only a hint: whoever wakes takes the oldest claimable job, and again until
there is none.
"""

import contextlib
import errno
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from service.errors import AdapterUnreadable, LeaseLost, NotFound, SystemFault
from service.expectation import expectation
from service.foreign import foreign_points
from service.jobs import FailureClass
from service.logs import about_job
from service.recipe import points_of
from service.schemas.gate import GateResult
from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, GateSpec, Runnable
from service.settings import Settings
from service.sources import needs_hub
from service.store import Claim, PointGroup, Store
from worker import child, publish, workdir
from worker.copying import Check
from worker.idle import Idle
from worker.lease import Lease
from worker.presence import Presence
from worker.process import COMMAND
from worker.supervise import Ended, Ending, supervise

log = logging.getLogger(__name__)
T = TypeVar("T")

DISK_FULL_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
"""The pause doubles with every attempt: a disk seldom empties itself."""
STORE_RETRY_SECONDS = 0.5


class Interrupted(Exception):
    """Outside the child, too, an attempt ends when nobody wants it any more."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.ending.value)
        self.ended = ended


def perform(
    store: Store,
    *,
    presence: Presence,
    settings: Settings,
    stopping: Callable[[], bool] = lambda: False,
    command: Sequence[str] = COMMAND,
    idle: Idle | None = None,
) -> int:
    """Runs claimable jobs one after another until there is none; returns how many it ran.

    `idle` may hold a child of an earlier job, and may hold one afterwards.
    """
    n_jobs = 0
    while not stopping() and (claim := store.claim(presence.worker)) is not None:
        n_jobs += 1
        log.info("%s: attempt %d", claim.job_id, claim.attempt)
        with presence.busy(claim.job_id), about_job(claim.job_id):
            try:
                with Lease(store, claim, settings) as lease:
                    _guarded_attempt(lease, settings, stopping, command, idle)
            except LeaseLost as lost:
                log.warning("%s: lease lost: %s", claim.job_id, lost.message)
            except Exception as error:
                # Whatever went wrong on our side of the child, the job must not wait for its lease.
                log.exception("%s: attempt %d broke", claim.job_id, claim.attempt)
                with contextlib.suppress(LeaseLost, SystemFault):
                    _give_up(store, claim, error, stopping=stopping())
    workdir.clean(store, settings)
    return n_jobs


def _guarded_attempt(
    lease: Lease,
    settings: Settings,
    stopping: Callable[[], bool],
    command: Sequence[str],
    idle: Idle | None,
) -> None:
    def check() -> None:
        lease.check()
        if lease.cancel_requested:
            raise Interrupted(Ended(Ending.CANCELLED))
        if stopping():
            raise Interrupted(Ended(Ending.RELEASED))

    try:
        _attempt(lease, settings, stopping, check, command, idle)
    except Interrupted as interrupted:
        log.info("%s: %s", lease.claim.job_id, interrupted)
        _close(lease, interrupted.ended)
    except OSError as error:
        if not child.is_disk_full(error):
            raise
        _close(lease, Ended(Ending.RELEASED, reason=child.DISK_FULL))


def _attempt(
    lease: Lease,
    settings: Settings,
    stopping: Callable[[], bool],
    check: Check,
    command: Sequence[str],
    idle: Idle | None,
) -> None:
    claim = lease.claim
    require_room(settings)
    hub = needs_hub(claim.spec, settings)
    warm = idle is not None and idle.seconds > 0
    serves = served_by(claim.spec, needs_hub=hub) if warm else None
    if idle is not None and serves is None:
        idle.end()  # this job wants the whole GPU
    folder, resumed_step = workdir.prepare(claim, settings, check)
    if resumed_step is not None:
        message = f"checkpoint of step {resumed_step} taken over from an earlier attempt"
        lease.tell({"kind": "log", "message": message, "step": resumed_step})
    try:
        adapters = publish.fetch_adapters(lease.seen, claim.spec, folder, settings, check)
    except AdapterUnreadable as error:
        word = child.failed(
            error.code, FailureClass.USER, error.message, param=error.param, details=error.details
        )
        _close(lease, Ended(Ending.FAILED, child.error_of(word)))
        return
    law = None
    if claim.spec["type"] == "gate":
        gate = GateSpec.model_validate(claim.spec)
        law = _insist(lease, lambda: expectation(gate, lease.seen))
    ended = supervise(
        lease,
        child.order_line(
            claim.spec,
            folder,
            adapters,
            settings,
            job_id=claim.job_id,
            law=law,
            stay=serves is not None,
        ),
        folder,
        settings=settings,
        needs_hub=hub,
        stopping=stopping,
        command=command,
        idle=idle,
        serves=serves,
    )
    log.info("%s: %s", claim.job_id, ended.ending)
    if ended.ending is Ending.SUCCEEDED:
        _finish(lease, folder, settings, check)
    else:
        _close(lease, ended)


def require_room(settings: Settings) -> None:
    """Raises OSError, as a full disk does, where so little is left that work would be lost."""
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < settings.min_free_bytes:
        said = f"{free:,} bytes are free, FORGETTING_MIN_FREE_BYTES asks for"
        raise OSError(errno.ENOSPC, f"{said} {settings.min_free_bytes:,}", str(home))


def served_by(spec: Mapping[str, Any], *, needs_hub: bool) -> str | None:
    """Which child may be given this job: one whose job before had the same. Null: only a fresh one.

    Training takes all the memory that there is, and leaves it in pieces. A child that was given
    the hub's token is none for a job that does not need it.
    """
    if spec["type"] not in ("evaluate", "gate"):
        return None
    return json.dumps([*(spec[name] for name in ("base_model", "revision", "dtype")), needs_hub])


def _close(lease: Lease, ended: Ended) -> None:
    claim, store = lease.claim, lease.store
    if ended.ending is Ending.CANCELLED:
        _insist(lease, lambda: store.finish_cancelled(claim))
    elif ended.ending is Ending.RELEASED:
        delay = 0.0
        if ended.reason == child.DISK_FULL:
            delay = disk_full_pause(claim.attempt)
            message = f"the worker's disk is full; the next attempt begins in {delay:g} s"
            lease.tell({"kind": "warning", "message": message})
            lease.flush()
        _insist(lease, lambda: store.release(claim, reason=ended.reason, delay_seconds=delay))
    else:
        _insist(lease, lambda: store.fail(claim, ended.error or {}, retry=ended.retry))


def disk_full_pause(attempt: int) -> float:
    """Seconds until the next attempt."""
    return float(min(DISK_FULL_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 10), LONGEST_PAUSE_SECONDS))


def _finish(lease: Lease, folder: Path, settings: Settings, check: Check) -> None:
    """Artifacts first, then the one transaction that makes result, points and state true."""
    claim, store = lease.claim, lease.store
    spec = TypeAdapter[Runnable](Runnable).validate_python(claim.spec)
    kind = GateResult if isinstance(spec, GateSpec) else Result
    result = kind.model_validate_json((folder / child.RESULT).read_bytes())
    body: dict[str, Any] = result.model_dump(mode="json")
    points = _law_points(lease, spec, body, folder)
    prefix = publish.prefix_of(claim)
    with contextlib.ExitStack() as undo:
        undo.callback(_withdraw, store, claim, prefix, settings)
        artifacts = publish.publish(folder / "artifacts", prefix, settings, check)
        check()
        _insist(
            lease,
            lambda: store.finish(
                claim,
                body,
                points=points,
                artifacts=artifacts,
                artifacts_prefix=prefix,
            ),
        )
        undo.pop_all()
    shutil.rmtree(folder.parent, ignore_errors=True)


def _law_points(
    lease: Lease, spec: Runnable, body: dict[str, Any], folder: Path
) -> list[PointGroup]:
    """Points by group. Why an adapter is none goes into the warnings of `body` and its file."""
    job_id = lease.claim.job_id
    if not isinstance(spec, EvaluateSpec):
        return points_of(job_id, spec, body)
    found = _insist(lease, lambda: foreign_points(spec, body, lease.seen))
    if found.refused:
        for message in found.refused:
            lease.tell({"kind": "warning", "message": message})
        lease.flush()
        body["warnings"] += found.refused
        text = Result.model_validate(body).model_dump_json(indent=1) + "\n"
        child.write_atomically(folder / "artifacts" / child.RESULT, text)
    return found.groups


def _insist(lease: Lease, end: Callable[[], T]) -> T:
    """Asks or ends in the store, and tries again while the store is away and the job ours.

    Raises LeaseLost, also where the first try went through and only its answer was lost.
    """
    while True:
        try:
            return end()
        except SystemFault as fault:
            log.warning("%s: not stored yet: %s", lease.claim.job_id, fault.message)
        time.sleep(STORE_RETRY_SECONDS)
        lease.check()


def _withdraw(store: Store, claim: Claim, prefix: str, settings: Settings) -> None:
    """Deletes the attempt's uploads, unless its result was stored and only the answer got lost."""
    with contextlib.suppress(NotFound):
        if store.job(claim.job_id).artifacts_prefix == prefix:
            return
    publish.withdraw(prefix, settings)


def _give_up(store: Store, claim: Claim, error: Exception, *, stopping: bool) -> None:
    if stopping:
        store.release(claim, reason="the worker is stopping")
        return
    detail = f"{type(error).__name__}: {error}"
    word = child.failed("internal_error", FailureClass.SYSTEM, detail)
    store.fail(claim, child.error_of(word), retry=True)
