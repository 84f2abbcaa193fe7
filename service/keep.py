"""Keeps a subprocess of ours running: started again when it dies, gone when we are.

Every kept process has a lifeline (service.lifeline) as its stdin and its own session, so that
a Ctrl-C at the terminal reaches only us and the order of stopping is ours.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import service

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)
STDERR = 2
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRETS = (
    *HUB_TOKENS,
    "FORGETTING_API_KEY",
    "FORGETTING_ARTIFACTS_URL",
    "FORGETTING_DATABASE_URL",
    "FORGETTING_KEY_PEPPER",
    "FORGETTING_REDIS_URL",
    "PGPASSWORD",
)
STEADY_SECONDS = 60.0
"""A process that lived this long starts again without waiting."""


def module_command(module: str, *arguments: str) -> list[str]:
    """argv that runs one of our modules, whatever the current folder holds (`-P`)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment, with the folder of our packages on PYTHONPATH."""
    root = str(Path(service.__file__).resolve().parent.parent)
    rest = os.environ.get("PYTHONPATH")
    path = root if not rest else os.pathsep.join([root, rest])
    return {**os.environ, "PYTHONPATH": path, **(changes or {})}


def without_secrets(environment: Mapping[str, str], *, keep: Sequence[str] = ()) -> dict[str, str]:
    """For a process that needs no keys and no addresses."""
    return {k: v for k, v in environment.items() if k not in SECRETS or k in keep}


class Kept:
    """One subprocess that is started again, with growing pauses, whenever it ends by itself."""

    def __init__(
        self, command: Sequence[str], *, name: str, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.starts = 0
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"keep-{name}", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self, patience_seconds: float) -> None:
        """SIGTERM, then SIGKILL after `patience_seconds`. Nothing is started any more."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            _send(process, signal.SIGTERM)
            try:
                process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
        self._thread.join()

    def _keep(self) -> None:
        failures = 0
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=STDERR,  # our own stdout is for data
                    env=self._environment,
                    start_new_session=True,
                )
                self._process = process
                self.starts += 1
            started = time.monotonic()
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1] if failures else 0.0
            _say(f"{self.name} ended ({_ending(code)}); starting it again in {pause:g} s")
            self._stopping.wait(pause)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _send(process: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
