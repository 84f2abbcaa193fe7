"""`POST /jobs` under load, durable commits, on both databases, with the broker up, down and frozen.

Needs `wrk` (apt-get install wrk). Service, database, broker and wrk share this machine.
"""

import argparse
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.settings import Settings
from service.store import Store
from tests.chaos.parts import Part, closing, environment, free_port, module, until
from tests.chaos.town import answers
from tests.e2e.house import ROOT, finetune, write_data
from tests.servers import postgres_program, redis_program

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]
bad = 0
function response(status) if status ~= 202 then bad = bad + 1 end end
function done(summary, latency)
  io.write(string.format("RESULT %d %f %d %d %d\\n", summary.requests, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99), summary.errors.status))
end
"""
BROKER = ("up", "down", "frozen")


@dataclass(frozen=True)
class Load:
    database: str
    broker: str
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submit", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not on PATH: apt-get install wrk")
    sys.stdout.write("| database | broker | req/s | of broker up | p50 ms | p99 ms | refused |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for database in ("sqlite", "postgresql"):
        loads = [measure(database, broker, given.seconds, given.connections) for broker in BROKER]
        for one in loads:
            share = one.per_second / loads[0].per_second
            sys.stdout.write(
                f"| {one.database} | {one.broker} | {one.per_second:.0f} | {share:.2f} | "
                f"{one.p50_ms:.1f} | {one.p99_ms:.1f} | {one.refused} |\n"
            )
        sys.stdout.flush()


def measure(database: str, broker: str, seconds: int, connections: int) -> Load:
    """One service of its own, warmed up for two seconds."""
    with served(database) as (url, folder, redis):
        script = folder / "submit.lua"
        script.write_text(WRK.format(body=json.dumps(finetune())))
        if broker == "down":
            redis.close(signal.SIGKILL)
        elif broker == "frozen":
            redis.send(signal.SIGSTOP)
        line = ["wrk", "-t1", f"-c{connections}", "-s", str(script), f"{url}/jobs"]
        subprocess.run([*line, "-d2s"], check=True, capture_output=True)
        ran = subprocess.run(
            [*line, f"-d{seconds}s", "--latency"], check=True, capture_output=True, text=True
        )
        redis.send(signal.SIGCONT)
    found = re.search(r"RESULT (\d+) ([\d.]+) (\d+) (\d+) (\d+)", ran.stdout)
    assert found is not None, ran.stdout
    n, took, p50, p99, refused = (float(text) for text in found.groups())
    return Load(database, broker, n / took, p50 / 1000, p99 / 1000, int(refused))


@contextlib.contextmanager
def served(database: str, *, claimer: bool = False) -> Iterator[tuple[str, Path, Part]]:
    """A service without workers, or with `benchmarks.claimer`; its address, folder and broker."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgetting-bench-")))
        write_data(folder)
        program = None
        if database == "postgresql":
            program = stack.enter_context(postgres_program(fsync="on"))
        parts = stack.enter_context(closing([]))
        store_url = f"sqlite:///{folder / 'bench.sqlite3'}"
        if program is not None:
            at = program
            port = free_port()
            parts.append(Part("database", at.command(port), folder / "database.log", **at.popen))
            store_url = at.url.format(port=port)
            until(lambda: at.answers(store_url), 30, "the database")
        broker, port = redis_program(folder), free_port()
        redis = Part("broker", broker.command(port), folder / "broker.log")
        parts.append(redis)
        redis_url = broker.url.format(port=port)
        until(lambda: broker.answers(redis_url), 30, "the broker")
        store = Store(store_url, Settings())
        store.migrate()
        store.dispose()
        own = environment(
            ROOT,
            FORGETTING_HOME=str(folder / "home"),
            FORGETTING_DATABASE_URL=store_url,
            FORGETTING_REDIS_URL=redis_url,
            FORGETTING_MODEL_ROOTS=json.dumps([str(ROOT / "demo")]),
            FORGETTING_DATA_ROOTS=json.dumps([str(folder)]),
            FORGETTING_ALLOW_HUB="false",
        )
        port = free_port()
        command = module("service.command", "serve", "--no-worker", "--port", str(port))
        parts.append(Part("service", command, folder / "service.log", env=own, cwd=folder))
        url = f"http://127.0.0.1:{port}/v1"
        until(lambda: answers(url), 60, "the service")
        if claimer:
            line, log = module("benchmarks.claimer"), folder / "claimer.log"
            parts.append(Part("claimer", line, log, env=own, cwd=folder))
        yield url, folder, redis


if __name__ == "__main__":
    main()
