"""The child of a finished job, kept for a while: the next job of the same base need not load it.

At most one per worker process. It holds no lease and no job, only memory, so whatever else this
worker is about to do ends it first.
"""

import threading

from worker.process import Child

MAX_ORDERS = 100
"""Of one process: what leaks is given back before it matters."""


class Idle:
    def __init__(self, seconds: float) -> None:
        """`seconds` is how long a child may wait; 0 keeps none."""
        self.seconds = seconds
        self._kept: tuple[Child, str, threading.Timer] | None = None
        self._guard = threading.Lock()

    def keep(self, child: Child, serves: str) -> None:
        """Take over a child that stays. `serves` tells which jobs it may be given."""
        self.end()
        if child.n_orders >= MAX_ORDERS or self.seconds <= 0:
            child.end()
            return
        timer = threading.Timer(self.seconds, self._expire, [child])
        timer.daemon = True
        with self._guard:
            self._kept = (child, serves, timer)
        timer.start()

    def take(self, serves: str | None) -> Child | None:
        """The waiting child, if it lives and may be given such a job; any other is ended."""
        child, kept_for = self._release()
        if child is None:
            return None
        if serves is not None and kept_for == serves and child.lives:
            return child
        child.end()
        return None

    def end(self) -> None:
        self.take(None)

    def _release(self) -> tuple[Child | None, str]:
        with self._guard:
            kept, self._kept = self._kept, None
        if kept is None:
            return None, ""
        child, serves, timer = kept
        timer.cancel()
        return child, serves

    def _expire(self, child: Child) -> None:
        with self._guard:
            if self._kept is None or self._kept[0] is not child:
                return  # it was taken in this very moment
            self._kept = None
        child.end()
