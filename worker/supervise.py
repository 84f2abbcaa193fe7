"""The parent's side of one attempt: a child in its own session, watched until it has ended.

The loop sleeps at most POLL_SECONDS, because Celery's stop flag is set by a signal handler that
wakes nobody: under the solo pool the handler runs between two bytecodes of this very loop.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from service.jobs import FailureClass
from service.settings import RELEASE_PATIENCE, Settings
from worker.child import RELEASED, RETRY, SUCCEEDED, error_of, failed
from worker.idle import Idle
from worker.lease import Lease
from worker.process import COMMAND, Child

POLL_SECONDS = 0.2


class Ending(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    ending: Ending
    error: dict[str, Any] | None = None
    retry: bool = False
    """Of a failure: the job may be tried again, at the cost of one from its budget."""
    reason: str = "the worker is stopping"
    """Of a release."""


def supervise(
    lease: Lease,
    order: bytes,
    workdir: Path,
    *,
    settings: Settings,
    stopping: Callable[[], bool],
    command: Sequence[str] = COMMAND,
    idle: Idle | None = None,
    serves: str | None = None,
    needs_hub: bool = False,
) -> Ended:
    """Runs one attempt to its end. Raises LeaseLost.

    A child in `idle` that serves the same is given the order, and a child that stays afterwards is
    left there; in every other case no child is left.
    """

    def watch(child: Child) -> Ended:
        ended = _watch(child, lease, order, workdir, settings, stopping)
        if idle is not None and serves is not None and child.stays and child.lives:
            idle.keep(child, serves)
        else:
            child.end()
        return ended

    warm = None if idle is None else idle.take(serves)
    if warm is not None:
        ended = watch(warm)
        if warm.heard:
            return ended
        # It died in its sleep, and this attempt has not begun.
    return watch(Child(command, workdir, needs_hub=needs_hub))


def _watch(
    child: Child,
    lease: Lease,
    order: bytes,
    workdir: Path,
    settings: Settings,
    stopping: Callable[[], bool],
) -> Ended:
    """The child has ended afterwards, or it stays and its attempt succeeded."""
    deadline = time.monotonic() + settings.job_time_limit_seconds
    grace_seconds = settings.grace_seconds
    failure: dict[str, Any] | None = None
    asked: Ending | None = None
    kill_at = float("inf")
    with contextlib.ExitStack() as undo:
        undo.enter_context(child)
        child.begin(order, workdir, lease.tell)
        while not child.done_within(POLL_SECONDS):
            lease.check()
            now = time.monotonic()
            if now >= kill_at:
                child.kill()
            elif asked is None:
                failure = _overdue(now > deadline, now - child.heard_at, settings)
                asked, patience = _reason_to_end(lease, stopping, failure is not None)
                if asked is not None:
                    child.signal(signal.SIGTERM)
                    kill_at = now + patience * grace_seconds
                elif child.word is not None and kill_at == float("inf"):
                    # It has said its last word; only its own shutdown is left, and may hang.
                    kill_at = now + grace_seconds + 5.0
        lease.flush()
        ended = _judge(child, asked, failure, cancelled=lease.cancel_requested)
        if child.stays and ended.ending is Ending.SUCCEEDED:
            undo.pop_all()
    return ended


def _reason_to_end(
    lease: Lease, stopping: Callable[[], bool], overdue: bool
) -> tuple[Ending | None, int]:
    """Why the child should end now, and how many graces it gets."""
    if lease.cancel_requested:
        return Ending.CANCELLED, 1
    if overdue:
        return Ending.FAILED, 1
    if stopping():
        return Ending.RELEASED, RELEASE_PATIENCE
    return None, 0


def _overdue(too_long: bool, silent_seconds: float, settings: Settings) -> dict[str, Any] | None:
    """The failed word of an attempt that takes too long or hangs."""
    if too_long:
        limit, variable = settings.job_time_limit_seconds, "FORGETTING_JOB_TIME_LIMIT_SECONDS"
        said = f"ran longer than {limit:g} s ({variable})"
        code = "time_limit"
    elif silent_seconds > settings.stall_seconds:
        limit, variable = settings.stall_seconds, "FORGETTING_STALL_SECONDS"
        said = f"said nothing for {limit:g} s ({variable})"
        code = "stalled"
    else:
        return None
    word = failed(code, FailureClass.SYSTEM, f"{said}; resume continues from its last checkpoint")
    return word | {RETRY: code == "stalled"}


def _judge(
    child: Child, asked: Ending | None, failure: dict[str, Any] | None, *, cancelled: bool
) -> Ended:
    if cancelled:
        return Ended(Ending.CANCELLED)
    word = child.word
    if word is not None and word["kind"] == SUCCEEDED:
        return Ended(Ending.SUCCEEDED)
    if asked is Ending.FAILED and failure is not None:
        return Ended(Ending.FAILED, error_of(failure), retry=bool(failure[RETRY]))
    if word is not None and word["kind"] != RELEASED:
        return Ended(Ending.FAILED, error_of(word), retry=bool(word.get(RETRY)))
    if asked is Ending.RELEASED:
        return Ended(Ending.RELEASED)
    if word is not None:
        return Ended(Ending.RELEASED, reason=word.get("reason", "the child was told to stop"))
    return _died(child)


def _died(child: Child) -> Ended:
    """The child is gone without a word; a signal may be bad luck, an exception is not."""
    code = child.exit_code
    tail = child.log_tail()
    details = {"exit_code": code, "log_tail": tail}
    if code == -signal.SIGKILL:
        detail = "killed from outside, most likely because the machine ran out of memory"
        word = failed("out_of_memory_or_killed", FailureClass.SYSTEM, detail, details=details)
    elif code < 0:
        detail = f"crashed with {signal.Signals(-code).name}"
        word = failed("worker_crashed", FailureClass.SYSTEM, detail, details=details)
    else:
        said = tail.strip().splitlines()
        detail = said[-1] if said else f"ended with exit code {code} and said nothing"
        word = failed("internal_error", FailureClass.SYSTEM, detail, details=details)
    return Ended(Ending.FAILED, error_of(word), retry=code < 0)
