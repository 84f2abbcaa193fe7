"""A child process: it leads its own session, and says events and at the end a word."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from service.keep import HUB_TOKENS, module_command, module_environment, without_secrets
from worker.child import LOG, STAYS, WORDS

LOG_TAIL_BYTES = 4_000
COMMAND = module_command("worker.run")
Tell = Callable[[dict[str, Any]], None]


class Child:
    """Give it an order with `begin`, and another one only while it `stays`."""

    def __init__(self, command: Sequence[str], workdir: Path, *, needs_hub: bool = False) -> None:
        self.word: dict[str, Any] | None = None
        """On the last order."""
        self.heard = False
        """Whether anything was said on it."""
        self.heard_at = time.monotonic()
        """When it last said anything, or was last told what to do."""
        self.n_orders = 0
        self.exit_code = 0
        self._log = workdir / LOG
        self._tell: Tell = lambda event: None
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

    def begin(self, order: bytes, workdir: Path, tell: Tell) -> None:
        """`tell` takes its events from now on; its prints go to the log in `workdir`."""
        self.word, self.heard, self.heard_at = None, False, time.monotonic()
        self.n_orders += 1
        self._log, self._tell = workdir / LOG, tell
        assert self._process.stdin is not None
        # Broken pipe: it is dead; its exit code tells more.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order)
            self._process.stdin.flush()

    @property
    def stays(self) -> bool:
        """Whether it has done its order and waits for the next one."""
        return self.word is not None and bool(self.word.get(STAYS))

    @property
    def lives(self) -> bool:
        return not self._has_ended()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends what is left of the group and waits for it."""
        self._reap()

    def done_within(self, seconds: float) -> bool:
        """It has ended, or stays."""
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            if self.stays:
                return True
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
        """The end of what was printed; empty where no log was begun."""
        if not self._log.exists():
            return ""
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
                self.heard, self.heard_at = True, time.monotonic()
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
