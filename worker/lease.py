"""One attempt's hold on its job: a thread beats, and each beat carries the events since the last.

The thread is apart so that neither an upload nor a frozen database stops the watch over the
child. A database that is away is survived until the lease would have run out by our own
monotonic clock, counted from before the last beat that went through: then it may be another's.
"""

import logging
import threading
import time
from typing import Any, Self

from service.errors import LeaseLost, SystemFault
from service.settings import Settings
from service.store import Access, Claim, Store

log = logging.getLogger(__name__)

Event = dict[str, Any]


class Lease:
    def __init__(self, store: Store, claim: Claim, settings: Settings) -> None:
        self.store = store
        self.claim = claim
        self.seen = store.seen_by(Access.of_job(claim.owner))
        """For what the job names or is compared with: never another owner's."""
        self.cancel_requested = False
        self._every = settings.beat_seconds
        self._length = settings.lease_seconds
        self._held_since = time.monotonic()
        self._lost: LeaseLost | None = None
        self._unsent: list[Event] = []
        self._unsent_guard = threading.Lock()
        self._beating = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._every)

    def tell(self, event: Event) -> None:
        """The next beat carries it. Never blocks on the database."""
        with self._unsent_guard:
            self._unsent.append(event)

    def check(self) -> None:
        """Raises LeaseLost when the job is no longer ours, or may no longer be."""
        if self._lost is not None:
            raise self._lost
        away = time.monotonic() - self._held_since
        if away >= self._length:
            raise LeaseLost(f"{self.claim.job_id}: no beat went through for {away:.0f} s")

    def flush(self) -> None:
        """One beat now, so that everything told is stored before the job's end. LeaseLost."""
        while True:
            self._beat()
            self.check()
            with self._unsent_guard:
                if not self._unsent:
                    return
            self._ended.wait(self._every)

    def _run(self) -> None:
        while not self._ended.wait(self._every) and self._lost is None:
            self._beat()

    def _beat(self) -> None:
        if not self._beating.acquire(timeout=self._length):
            return
        try:
            with self._unsent_guard:
                events, self._unsent = self._unsent, []
            tried = time.monotonic()
            try:
                cancel = self.store.beat(self.claim, events)
            except SystemFault as fault:
                log.warning("%s: beat failed: %s", self.claim.job_id, fault.message)
                with self._unsent_guard:
                    self._unsent = events + self._unsent
            except LeaseLost as lost:
                self._lost = lost
            else:
                self._held_since = tried
                self.cancel_requested = self.cancel_requested or cancel
        finally:
            self._beating.release()
