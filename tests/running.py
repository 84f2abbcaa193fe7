"""Server processes that never outlive the tests, however the tests end."""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

START_SECONDS = 30.0
PORTS = 5
"""Another process may take the free port between our look and the server's start."""
# Its stdin closes when whoever holds the other end dies, even by SIGKILL.
WATCH = "import os, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), int(sys.argv[2]))"


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]],
    url: str,
    answers: Callable[[str], bool],
    *,
    stop: signal.Signals,
    **popen: Any,
) -> Iterator[str]:
    """A server that answers at `url` with its port filled in; ended by `stop`, then SIGKILL."""
    said = ""
    for _ in range(PORTS):
        port = free_port()
        at = url.format(port=port)
        with tempfile.TemporaryFile("w+") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            server = subprocess.Popen(command(port), start_new_session=True, **streams, **popen)
            with _ended_with_us(server, stop):
                if _answers_in_time(server, lambda at=at: answers(at)):
                    yield at
                    return
            log.seek(0)
            said = log.read()
    pytest.fail(f"{command(0)[0]} did not start:\n{said}")


@contextlib.contextmanager
def _ended_with_us(server: subprocess.Popen[bytes], stop: signal.Signals) -> Iterator[None]:
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(server.pid), str(int(stop))],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert watch.stdin is not None
    try:
        yield
    finally:
        watch.kill()  # first, lest it signal a process that is not ours
        watch.wait()
        watch.stdin.close()
        server.send_signal(stop)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers_in_time(server: subprocess.Popen[bytes], answers: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if answers():
            return True
        time.sleep(0.05)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
