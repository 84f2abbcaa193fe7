"""Ids that sort by creation: a prefix and a ULID of the database's time."""

import threading

from ulid import ULID

_lock = threading.Lock()
_last = 0


def new_id(prefix: str, *, at: float) -> str:
    """`prefix_<ULID>`, later than every id this process made before."""
    global _last
    with _lock:
        fresh = int(ULID.from_timestamp(at))
        # Within one millisecond a ULID is random: count on from the last one instead.
        _last = fresh if fresh >> 80 > _last >> 80 else _last + 1
        return f"{prefix}_{ULID.from_int(_last)}"
