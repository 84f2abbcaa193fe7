"""A pipe that a parent holds open, and seldom writes to: its end means that the parent died.

The read end is always file descriptor 0. It is read with os.read, never through `sys.stdin`,
because a daemon thread inside a buffered read aborts the interpreter's shutdown.
"""

import os
import queue
import threading
from collections.abc import Callable

STDIN = 0


def read_line(fd: int = STDIN) -> bytes:
    """The first line, without reading beyond it; b"" if the pipe is closed already."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def watch(when_cut: Callable[[], object], fd: int = STDIN) -> threading.Thread:
    """Calls `when_cut` from a daemon thread as soon as nobody holds the write end."""

    def wait() -> None:
        while os.read(fd, 4096):
            pass
        when_cut()

    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


def lines(when_cut: Callable[[], object], fd: int = STDIN) -> "queue.SimpleQueue[bytes]":
    """`watch`, for a pipe that lines still come by: each whole one is put into the queue."""
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while line := read_line(fd):
            arrived.put(line)
        when_cut()

    threading.Thread(target=read, name="lifeline", daemon=True).start()
    return arrived
