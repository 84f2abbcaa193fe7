"""What was read off files, kept until one of them changes.

A file counts as the same while inode, size and both times are. One that changed just now is read
again: a second change within the same tick of the clock would not show.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Mark = tuple[int, ...] | None
"""None of what cannot be looked at; `read` will say why."""
STILL_SECONDS = 2.0


class Remembered(Generic[T]):
    """The `size` values that were asked for last. Safe to share between threads."""

    def __init__(self, size: int, *, still_seconds: float = STILL_SECONDS) -> None:
        self._size, self._still = size, still_seconds
        self._kept: OrderedDict[Hashable, tuple[list[Mark], T]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Hashable, files: Iterable[Path], read: Callable[[], T]) -> T:
        """What `read` gave for this key when the files were as they are now. What it raises is
        not kept."""
        # Looked at before they are read: a change meanwhile shows the next time.
        marks = [_mark(file) for file in files]
        with self._lock:
            known = self._kept.get(key)
            if known is not None and known[0] == marks:
                self._kept.move_to_end(key)
                return known[1]
        value = read()
        if self._are_still(marks):
            with self._lock:
                self._kept[key] = (marks, value)
                self._kept.move_to_end(key)
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)
        return value

    def _are_still(self, marks: list[Mark]) -> bool:
        before = (time.time() - self._still) * 1e9
        return all(mark is not None and mark[-1] <= before for mark in marks)


def _mark(file: Path) -> Mark:
    try:
        seen = os.stat(file)
    except OSError:
        return None
    # The last of them is the inode's own time, which nobody can set.
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
