"""The processes of a set-up, each started again when it dies, as an init system would."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from service.errors import SystemFault

RESTART_SECONDS = 0.3


class Part:
    """One process that is kept alive until `close`; frozen or killed by whoever likes."""

    def __init__(
        self, name: str, command: list[str], log: Path, *, lifeline: bool = False, **popen: Any
    ) -> None:
        self.name = name
        self._command, self._log, self._popen = command, log, popen
        self._lifeline = lifeline
        self._closing = threading.Event()
        self.process = self._start()
        self._keeper = threading.Thread(target=self._keep, name=f"keep {name}", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signum)

    def freeze(self, seconds: float) -> None:
        """As a network cut or a swapping machine would."""
        process = self.process
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)

    def children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children()
        return []

    def close(self, signum: int = signal.SIGTERM) -> None:
        self._closing.set()
        self.send(signal.SIGCONT)
        self.send(signum)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._keeper.join(5)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE if self._lifeline else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._popen,
            )

    def _keep(self) -> None:
        while not self._closing.is_set():
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()
            if self._closing.wait(RESTART_SECONDS):
                return
            self.process = self._start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def environment(root: Path, **settings: str) -> dict[str, str]:
    """Ours without settings of whoever runs this, and with these."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("FORGETTING_")}
    return {**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **settings}


@contextlib.contextmanager
def closing(parts: list[Part]) -> Iterator[list[Part]]:
    """All parts of the list, whatever was put into it, are gone afterwards."""
    try:
        yield parts
    finally:
        for part in reversed(parts):
            part.close()


# Its stdin closes when whoever holds the other end dies, even by SIGKILL.
LEFTOVERS = """
import sys, psutil
sys.stdin.read()
for one in psutil.process_iter(["cwd"]):
    if (one.info["cwd"] or "").startswith(tuple(sys.argv[1:])):
        one.kill()
"""


@contextlib.contextmanager
def outlived_by_none(*folders: Path) -> Iterator[None]:
    """Processes in these folders end with us, whatever becomes of us."""
    line = [sys.executable, "-c", LEFTOVERS, *map(str, folders)]
    watch = subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True)
    assert watch.stdin is not None
    try:
        yield
    finally:
        watch.stdin.close()
        watch.wait()


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Asks again and again; a database that is away says neither yes nor no."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(SystemFault):
            if true():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
