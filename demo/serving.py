"""The embedded set-up in a folder of its own: `forgetting-service serve`, as a user starts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from forgetting_client import ForgettingClient

START_SECONDS = 180.0
"""Importing torch from a cold disk may take a minute."""
STOP_SECONDS = 40.0
"""More than the service's own patience with its worker."""
MOST_THREADS = 4
"""Half of the cores, but never more: on a busy machine threads of so small a model wait for one
another more than they compute."""
READY = " is ready at "


def threads() -> int:
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) // 2))


class ServingError(Exception):
    """The service did not start, or is gone. The message holds the end of what it said."""


class Serving:
    """A running service. `folder` holds its database, artifacts and log, nothing outside it."""

    def __init__(self, folder: Path, *, model_root: Path, data_root: Path) -> None:
        self.log = folder / "service.log"
        self.url = ""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FORGETTING_")}
        if broker := os.environ.get("FORGETTING_REDIS_URL"):
            kept["FORGETTING_REDIS_URL"] = broker  # where no server of our own can be had
        kept.setdefault("OMP_NUM_THREADS", str(threads()))
        # A file, not a pipe: a service that is kept goes on writing when we are gone.
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.command", "serve", "--port", "0"],
                env=kept
                | {
                    "FORGETTING_HOME": str(folder),
                    "FORGETTING_MODEL_ROOTS": json.dumps([str(model_root)]),
                    "FORGETTING_DATA_ROOTS": json.dumps([str(data_root)]),
                    "FORGETTING_ALLOW_HUB": "false",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C reaches us alone, and we stop it in order
            )

    def poll(self) -> None:
        """Raises ServingError if the service has ended."""
        if self.process.poll() is not None:
            raise ServingError(f"The service ended with {self.process.returncode}.\n{self.tail()}")

    def wait_ready(self) -> Iterator[str]:
        """Yields what is waited for, several times a second, until a worker lives."""
        deadline = time.monotonic() + START_SECONDS
        while not self.url:
            yield "starting the service"
            self._pause(deadline)
            self.url = self._address()
        with ForgettingClient(self.url) as client:
            while (ready := client.ready())["status"] != "ready":
                missing = [name for name, check in ready["checks"].items() if not check["ok"]]
                yield f"waiting for the {' and the '.join(missing)}"
                self._pause(deadline)

    def stop(self) -> None:
        """SIGTERM and patience; the service ends its worker and its broker itself."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # What it started hangs on lifelines and ends with it.
            self.process.kill()
            self.process.wait()

    def tail(self, n_lines: int = 15) -> str:
        return "\n".join(self._text().splitlines()[-n_lines:])

    def _pause(self, deadline: float) -> None:
        self.poll()
        if time.monotonic() > deadline:
            raise ServingError(f"Not ready after {START_SECONDS:.0f} s.\n{self.tail()}")
        time.sleep(0.2)

    def _address(self) -> str:
        """Where the service listens, once its log says so."""
        after = self._text().partition(READY)[2]
        return after.split()[0] if "\n" in after else ""

    def _text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")
