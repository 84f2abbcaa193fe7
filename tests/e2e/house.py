"""The whole embedded set-up as a user starts it: one command, real processes, real HTTP."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

ROOT = Path(__file__).parent.parent.parent
FAST = {
    "FORGETTING_LEASE_SECONDS": "3",
    "FORGETTING_BEAT_SECONDS": "0.3",
    "FORGETTING_SWEEP_SECONDS": "0.5",
    "FORGETTING_RESUME_CHECKPOINT_SECONDS": "1",
    "OMP_NUM_THREADS": "1",
}
T = TypeVar("T")


class House:
    """A running `forgetting-service serve`, the processes below it, and a client of it."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FORGETTING_")},
            **FAST,
            "PYTHONPATH": str(ROOT),
            "FORGETTING_HOME": str(folder / "home"),
            "FORGETTING_MODEL_ROOTS": json.dumps([str(ROOT / "demo")]),
            "FORGETTING_DATA_ROOTS": json.dumps([str(folder)]),
            "FORGETTING_ALLOW_HUB": "false",
            **settings,
        }
        write_data(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.command", "serve", "--port", "0", *options],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(60), self.said
        [line] = [line for line in self.said if " is ready at " in line] or [""]
        assert line, self.said
        self.url = line.partition(" is ready at ")[2].split()[0]
        self.client = httpx2.Client(base_url=f"{self.url}/v1", timeout=10)

    def stop(self) -> None:
        self.client.close()
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def submit(self, **changes: Any) -> str:
        answer = self.client.post("/jobs", json=finetune(**changes))
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def ends(self, job_id: str, *, seconds: float = 240) -> dict[str, Any]:
        over = {"succeeded", "failed", "cancelled"}
        return self.until(
            lambda: found if (found := self.job(job_id))["status"] in over else None, seconds
        )

    def until(self, ask: Callable[[], T | None], seconds: float = 120) -> T:
        """The first answer that is true."""
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < deadline, "\n".join(self.said[-40:])
            time.sleep(0.1)
        return answer

    def sealed(self, job_id: str) -> int:
        """Waits for a whole resume checkpoint of the running attempt; returns its step."""
        manifests = "attempt-*/resume/checkpoint-*/MANIFEST.json"

        def step() -> int | None:
            found = (self.folder / "home" / "work" / job_id).glob(manifests)
            return max((int(path.parent.name.partition("-")[2]) for path in found), default=None)

        return self.until(step)

    def resumed(self, job_id: str) -> list[int]:
        """The steps from which attempts have said that they go on."""
        said = "resumed from step "
        return [int(log.removeprefix(said)) for log in self.logs(job_id) if log.startswith(said)]

    def logs(self, job_id: str) -> list[str]:
        """Every log message so far, page by page."""
        found: list[dict[str, Any]] = []
        more = True
        while more:
            after = {"limit": 1000, "after": found[-1]["id"] if found else 0}
            page = self.client.get(f"/jobs/{job_id}/events", params=after).json()
            found += page["data"]
            more = page["has_more"]
        return [event["data"]["message"] for event in found if event["kind"] == "log"]

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def find(self, argument: str) -> psutil.Process | None:
        """The process below us with that argument: `--one` is Celery, `worker.run` a child."""
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if argument in one.cmdline():
                    return one
        return None

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if " is ready at " in line:
                self._ready.set()
        self._ready.set()


@contextlib.contextmanager
def house(folder: Path, *options: str, **settings: str) -> Iterator[House]:
    running = House(folder, *options, **settings)
    try:
        yield running
    finally:
        running.stop()


def write_data(folder: Path) -> None:
    """A small dataset and a small corpus."""
    names = ("river", "mill", "valley", "bridge", "garden", "station", "harbour")
    rows = [
        {"prompt": f"What stands by the {a}?", "completion": f" By the {a} stands a {b}, row {i}."}
        for i, (a, b) in enumerate((a, b) for a in names for b in names)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prose = "The old mill stands by the river, and nobody remembers who built it. "
    (folder / "prose.txt").write_text("\n\n".join(prose * 3 for _ in range(12)))


def finetune(*, max_steps: int = 6, **changes: Any) -> dict[str, Any]:
    """A spec that takes seconds; a long one for those who interrupt it."""
    return {
        "type": "finetune",
        "base_model": "tiny_base",
        "dataset": {"path": "rows.jsonl"},
        "training": {
            "max_steps": max_steps,
            "batch_size": 4,
            "max_length": 48,
            "checkpoints": "final",
            "learning_rate": 1e-3,
            "held_out": 0.2,
            "lora": {"r": 4},
        },
        "evaluation": {"corpus": "prose.txt", "context": 32},
        **changes,
    }
