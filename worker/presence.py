"""Says to the database that this worker lives, and whether it is busy; /readyz reads it.

From a thread, because a job fills the solo pool's main thread, and never through Celery's ping,
which a busy solo worker does not answer.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

from service.errors import SystemFault
from service.store import Store

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 5.0


class Presence:
    def __init__(self, store: Store, worker: str, *, every_seconds: float) -> None:
        self.worker = worker
        self._store = store
        self._every = min(every_seconds, LONGEST_PAUSE_SECONDS)
        self._job_id: str | None = None
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Takes the worker off the list."""
        self._stopping.set()
        self._changed.set()
        self._thread.join(timeout=5.0)
        with contextlib.suppress(SystemFault):
            self._store.forget_worker(self.worker)

    @contextlib.contextmanager
    def busy(self, job_id: str) -> Iterator[None]:
        self._job_id = job_id
        self._changed.set()
        try:
            yield
        finally:
            self._job_id = None
            self._changed.set()

    def _run(self) -> None:
        info = describe()
        while not self._stopping.is_set():
            self._changed.clear()
            job_id = self._job_id
            state = "idle" if job_id is None else "busy"
            try:
                self._store.beat_worker(self.worker, state=state, job_id=job_id, info=info)
            except SystemFault as fault:
                log.warning("%s: not beaten: %s", self.worker, fault.message)
            self._changed.wait(self._every)


def worker_name() -> str:
    """Unique among workers that live at the same time, on however many machines."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{f'gpu{gpu}' if gpu else 'cpu'}@{socket.gethostname()}:{os.getpid()}"


def describe() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
