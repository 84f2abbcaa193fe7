"""A time limit on whatever is done inside, a call that hangs included."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeIsUp(BaseException):
    """Raised anywhere, as KeyboardInterrupt is, and like it no Exception: what cleans up after
    itself does, and nobody takes it for a fault of his own."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raises TimeIsUp after so many seconds. Main thread only, one at a time."""
    if seconds is None:
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: the first one is lost where it falls into a finaliser.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
