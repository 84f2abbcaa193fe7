"""Makes good what a ring or a worker lost. In every service process; the store keeps them apart."""

import logging
import random
import threading
from collections.abc import Callable
from typing import Self

from service.errors import SystemFault
from service.store import Store

log = logging.getLogger(__name__)

Ring = Callable[[str], object]


def sweep_once(store: Store, ring: Ring) -> list[str]:
    """Reap expired leases, then ring for jobs that nobody took; the ids rung.

    One ring per idle worker: a busy one claims again by itself when it is done, and rings
    that nobody hears would only pile up at the broker.
    """
    reaped = store.reap()
    if reaped:
        log.warning("leases expired: %s", ", ".join(reaped))
    waiting = dict.fromkeys(reaped + store.stale_queued(store.settings.sweep_seconds))
    n_idle = sum(worker.state == "idle" for worker in store.living_workers())
    rung = list(waiting)[:n_idle]
    for job_id in rung:
        ring(job_id)
    return rung


class Sweeper:
    """A thread that sweeps every `settings.sweep_seconds`, also after the database was away."""

    def __init__(self, store: Store, ring: Ring) -> None:
        self._store = store
        self._ring = ring
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                sweep_once(self._store, self._ring)
            except SystemFault as fault:
                log.warning("sweep: %s", fault.message)
            # Several services would otherwise sweep in step.
            jitter = random.uniform(0.8, 1.2)
            self._stopping.wait(self._store.settings.sweep_seconds * jitter)
