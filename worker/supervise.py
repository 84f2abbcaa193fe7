"""The parent's side of one attempt: a child in its own session, watched until it has ended.

The loop sleeps at most POLL_SECONDS, because Celery's stop flag is set by a signal handler that
wakes nobody: under the solo pool the handler runs between two bytecodes of this very loop.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from service.jobs import FailureClass
from service.keep import HUB_TOKENS, module_command, module_environment, without_secrets
from service.settings import RELEASE_PATIENCE
from worker.child import RELEASED, RETRY, SUCCEEDED, WORDS, error_of, failed
from worker.lease import Lease

POLL_SECONDS = 0.2
LOG = "child.log"
LOG_TAIL_BYTES = 4_000
COMMAND = module_command("worker.run")


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
    grace_seconds: float,
    limit_seconds: float,
    stopping: Callable[[], bool],
    command: Sequence[str] = COMMAND,
    needs_hub: bool = False,
) -> Ended:
    """Runs one attempt to its end. Raises LeaseLost; in every case no child is left."""
    deadline = time.monotonic() + limit_seconds
    asked: Ending | None = None
    kill_at = float("inf")
    with Child(command, order, workdir, lease.tell, needs_hub=needs_hub) as child:
        while not child.ended_within(POLL_SECONDS):
            lease.check()
            now = time.monotonic()
            if now >= kill_at:
                child.kill()
            elif asked is None:
                asked, patience = _reason_to_end(lease, stopping, now > deadline)
                if asked is not None:
                    child.signal(signal.SIGTERM)
                    kill_at = now + patience * grace_seconds
                elif child.word is not None and kill_at == float("inf"):
                    # It has said its last word; only its own shutdown is left, and may hang.
                    kill_at = now + grace_seconds + 5.0
    lease.flush()
    return _judge(child, asked, cancelled=lease.cancel_requested, limit_seconds=limit_seconds)


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


def _judge(child: "Child", asked: Ending | None, *, cancelled: bool, limit_seconds: float) -> Ended:
    if cancelled:
        return Ended(Ending.CANCELLED)
    word = child.word
    if word is not None and word["kind"] == SUCCEEDED:
        return Ended(Ending.SUCCEEDED)
    if asked is Ending.FAILED:
        detail = (
            f"ran longer than {limit_seconds:g} s (FORGETTING_JOB_TIME_LIMIT_SECONDS); "
            "resume continues from its last checkpoint"
        )
        return Ended(Ending.FAILED, error_of(failed("time_limit", FailureClass.SYSTEM, detail)))
    if word is not None and word["kind"] != RELEASED:
        return Ended(Ending.FAILED, error_of(word), retry=bool(word.get(RETRY)))
    if asked is Ending.RELEASED:
        return Ended(Ending.RELEASED)
    if word is not None:
        return Ended(Ending.RELEASED, reason=word.get("reason", "the child was told to stop"))
    return _died(child)


def _died(child: "Child") -> Ended:
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


class Child:
    """A process that leads its own session, its events, and its last word."""

    def __init__(
        self,
        command: Sequence[str],
        order: bytes,
        workdir: Path,
        tell: Callable[[dict[str, Any]], None],
        *,
        needs_hub: bool = False,
    ) -> None:
        self.word: dict[str, Any] | None = None
        self.exit_code = 0
        self._log = workdir / LOG
        self._tell = tell
        self._reaped = False
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(needs_hub=needs_hub),
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name="child-events", daemon=True
        )
        self._reader.start()
        assert self._process.stdin is not None
        # Broken pipe: it died at once; its exit code tells more.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order)
            self._process.stdin.flush()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is left of the group and waits for it."""
        self._reap()

    def ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.05))
        self._reap()
        return True

    def signal(self, signum: int) -> None:
        """To the whole group; it cannot hit a stranger, because the leader is not reaped yet."""
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signum)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def log_tail(self) -> str:
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")

    def _has_ended(self) -> bool:
        """Without reaping, so that the group's number stays taken."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._reaped or os.waitid(os.P_PID, self._process.pid, options) is not None

    def _reap(self) -> None:
        if self._reaped:
            return
        self.kill()
        self._reaped = True
        self.exit_code = self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        # Something that left the group may still hold the pipe; we do not wait for it.
        self._reader.join(timeout=5.0)

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                event = _event(line)
                if event is None:
                    continue
                if event["kind"] in WORDS:
                    self.word = event
                else:
                    self._tell(event)


def _event(line: bytes) -> dict[str, Any] | None:
    """None for what is no event: a print from before stdout was ours, or a torn last line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def _environment(*, needs_hub: bool) -> dict[str, str]:
    """Ours without secrets. The hub's token goes only where something is fetched with it."""
    if needs_hub:
        return without_secrets(module_environment(), keep=HUB_TOKENS)
    # Not the one that `hf auth login` left in a file, either.
    return without_secrets(module_environment({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}))
