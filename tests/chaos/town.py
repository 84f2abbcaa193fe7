"""A whole set-up: two services, three workers, a broker and a database, each to be harmed."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import redis

from service.settings import Settings
from service.store import Store
from tests.chaos.child import LEDGER
from tests.chaos.clients import ADAPTER, write_adapter
from tests.chaos.parts import (
    Part,
    closing,
    environment,
    free_port,
    module,
    outlived_by_none,
    until,
)
from tests.e2e.house import ROOT, write_data
from tests.servers import postgres_program, redis_program

LEASE_SECONDS = 3.0
N_SERVICES, N_WORKERS = 2, 3
FAST = {
    "FORGETTING_LEASE_SECONDS": str(LEASE_SECONDS),
    "FORGETTING_BEAT_SECONDS": "0.3",
    "FORGETTING_SWEEP_SECONDS": "0.5",
    "FORGETTING_GRACE_SECONDS": "0.5",
    "FORGETTING_MAX_FAILURES": "12",
    "FORGETTING_ALLOW_HUB": "false",
}


@dataclass
class Town:
    folder: Path
    store: Store
    """Our own look at the database."""
    services: list[Part]
    workers: list[Part]
    redis: Part
    redis_url: str
    urls: list[str]
    database: Part | None
    """None: SQLite has no process."""
    database_url: str
    faults: list[tuple[float, str, str | None]] = field(default_factory=list)
    """When, what, and the job that the victim was busy with."""

    def harm(self, rng: random.Random) -> None:
        """One fault, drawn at random; returns when it is over, restarts apart."""
        name, deed = rng.choice(sorted(self._deeds().items()))
        victim = rng.choice(self.workers)
        at, job = time.time(), self._busy_with(victim.pid) if "worker" in name else None
        self.faults.append((at, name, job))
        deed(rng, victim)

    def ledger(self) -> list[str]:
        """`job_… attempt-n` per execution that came to its end."""
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def logs(self) -> str:
        return "\n".join(p.read_text(errors="replace") for p in self.folder.glob("worker-*.log"))

    def _deeds(self) -> dict[str, Callable[[random.Random, Part], None]]:
        deeds: dict[str, Callable[[random.Random, Part], None]] = {
            "worker killed": lambda rng, worker: worker.send(signal.SIGKILL),
            "worker told to stop": lambda rng, worker: worker.send(signal.SIGTERM),
            "worker frozen beyond its lease": lambda rng, w: w.freeze(LEASE_SECONDS * 1.5),
            "worker's child killed": lambda rng, worker: self._kill_child(worker),
            "service killed": lambda rng, _: rng.choice(self.services).send(signal.SIGKILL),
            "service frozen": lambda rng, _: rng.choice(self.services).freeze(1.5),
            "broker killed": lambda rng, _: self.redis.send(signal.SIGKILL),
            "broker flushed": lambda rng, _: self._flush(),
            "broker frozen": lambda rng, _: self.redis.freeze(2.0),
        }
        if self.database is None:
            return {**deeds, "database locked": lambda rng, _: self._away(1.5)}
        database = self.database
        return {
            **deeds,
            "database crashed": lambda rng, _: database.send(signal.SIGQUIT),
            "database frozen": lambda rng, _: self._away(1.5),
        }

    def _busy_with(self, pid: int) -> str | None:
        with contextlib.suppress(Exception):
            return next(w.job_id for w in self.store.living_workers() if w.info.get("pid") == pid)
        return None

    def _kill_child(self, worker: Part) -> None:
        for one in worker.children():
            with contextlib.suppress(Exception):
                one.kill()

    def _flush(self) -> None:
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis.from_url(self.redis_url, socket_timeout=1) as client,
        ):
            client.flushall()

    @contextlib.contextmanager
    def database_away(self) -> Iterator[None]:
        """It answers nobody: its processes are frozen, or its one writer's lock is taken."""
        if self.database is None:
            path = self.database_url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("PRAGMA busy_timeout = 10000")
                other.execute("BEGIN IMMEDIATE")
                yield
                other.execute("ROLLBACK")
            return
        frozen = [self.database.pid, *(one.pid for one in self.database.children())]
        try:
            _send(frozen, signal.SIGSTOP)
            yield
        finally:
            _send(frozen, signal.SIGCONT)

    def _away(self, seconds: float) -> None:
        with contextlib.suppress(sqlite3.OperationalError), self.database_away():
            time.sleep(seconds)


@contextlib.contextmanager
def town(database: str, **settings: str) -> Iterator[Town]:
    """`database`: sqlite or postgresql, durable as in production."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgetting-chaos-")))
        write_data(folder)
        write_adapter(folder / ADAPTER)
        program = None
        if database == "postgresql":
            program = stack.enter_context(postgres_program(fsync="on"))
        places = [folder, *([] if program is None else [program.popen["cwd"]])]
        stack.enter_context(outlived_by_none(*places))
        parts = stack.enter_context(closing([]))
        server: Part | None = None
        url = f"sqlite:///{folder / 'chaos.sqlite3'}"
        if program is not None:
            port = free_port()
            log = folder / "database.log"
            server = Part("database", program.command(port), log, **program.popen)
            parts.append(server)
            url = program.url.format(port=port)
            _wait(program.answers, url)
        broker, port = redis_program(folder), free_port()
        redis_part = Part("broker", broker.command(port), folder / "broker.log")
        parts.append(redis_part)
        redis_url = broker.url.format(port=port)
        _wait(broker.answers, redis_url)
        own = environment(
            ROOT,
            **{**FAST, **settings},
            FORGETTING_HOME=str(folder / "home"),
            FORGETTING_DATABASE_URL=url,
            FORGETTING_REDIS_URL=redis_url,
            FORGETTING_MODEL_ROOTS=json.dumps([str(ROOT / "demo"), str(folder)]),
            FORGETTING_DATA_ROOTS=json.dumps([str(folder)]),
            **{LEDGER: str(folder / "ledger")},
        )
        store = Store(url, Settings(lease_seconds=LEASE_SECONDS))
        stack.callback(store.dispose)
        store.migrate()
        ports = [free_port() for _ in range(N_SERVICES)]
        services = [
            Part(
                f"service-{i}",
                module("service.command", "serve", "--no-worker", "--port", str(port)),
                folder / f"service-{i}.log",
                env=own,
                cwd=folder,
            )
            for i, port in enumerate(ports)
        ]
        parts += services
        workers = [
            Part(
                f"worker-{i}",
                module("tests.chaos.worker"),
                folder / f"worker-{i}.log",
                lifeline=True,
                env=own,
                cwd=folder,
            )
            for i in range(N_WORKERS)
        ]
        parts += workers
        urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
        for at in urls:
            until(lambda at=at: answers(at), 60, f"a service at {at}")
        yield Town(folder, store, services, workers, redis_part, redis_url, urls, server, url)


def answers(url: str) -> bool:
    """Whether a service listens there."""
    try:
        return httpx2.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def _send(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _wait(answers: Callable[[str], bool], url: str) -> None:
    deadline = time.monotonic() + 30
    while not answers(url):
        assert time.monotonic() < deadline, url
        time.sleep(0.1)
