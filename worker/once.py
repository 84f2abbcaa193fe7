"""What several processes want at the same time is computed by one of them, while the others wait.

The lock saves work and nothing else: entries of the cache are whole or absent whoever writes them,
so where it fails two processes compute the same numbers. It is the kernel's, so it goes with its
holder however that ends; a holder that shows no sign of life for `STALE_SECONDS`, frozen or on
another machine that died, is waited for no longer.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from worker.cache import Cache, Entry

POLL_SECONDS = 0.2
STALE_SECONDS = 120.0
Alive = Callable[[], None]


def once(
    cache: Cache,
    key: Mapping[str, Any],
    compute: Callable[[Alive], Entry],
    *,
    waiting: Alive = lambda: None,
) -> tuple[Entry, bool]:
    """The entry of `key`; True: it was in the cache, or came into it while we waited.

    `compute` writes and returns it, and calls its argument every few seconds as a sign of life.
    `waiting` is called while another process computes; what it raises ends the wait.
    """
    entry = cache.get(key)
    if entry is not None:
        return entry, True
    with _turn(cache, key, waiting) as alive:
        # It may have come between the first look and our turn, or be on another machine.
        entry = cache.get(key) or cache.fetch(key)
        if entry is not None:
            return entry, True
        entry = compute(alive)
        cache.offer(key)
        return entry, False


@contextmanager
def _turn(cache: Cache, key: Mapping[str, Any], waiting: Alive) -> Iterator[Alive]:
    """Waits until the lock is ours or its holder is stale."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    path = cache.lock_file(key)
    file, ours = _lock(path, waiting)
    try:
        os.utime(file)
        yield lambda: os.utime(file)
    finally:
        if ours:
            path.unlink(missing_ok=True)
        os.close(file)  # and with it goes the lock


def _lock(path: Path, waiting: Alive) -> tuple[int, bool]:
    """The lock file, open; False: it is another's, who is stale."""
    while True:
        with ExitStack() as undo:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            undo.callback(os.close, file)
            ours = _wait(file, waiting)
            # Its last holder removes it: who then holds the old file holds nothing.
            if not ours or _is(path, file):
                undo.pop_all()
                return file, ours


def _wait(file: int, waiting: Alive) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            if time.time() - os.fstat(file).st_mtime > STALE_SECONDS:
                return False
            time.sleep(POLL_SECONDS)
        except OSError:  # a file system without locks: nobody to wait for
            return True
        else:
            return True


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
