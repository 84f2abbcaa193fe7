"""`forgetting gate` as CI runs it: a process of its own, and hands to play the worker with."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.store import Store
from tests.gate_results import check, end_gate

ROOT = Path(__file__).parent.parent.parent
FORGETTING = str(Path(sys.executable).with_name("forgetting"))
OURS = ("FORGETTING_", "GITHUB_")
POLICY = "version: 1\nchecks:\n  - {id: mean, metric: kl, fail_above: 0.08}\n"
Act = Callable[[Store], object]


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = os.pathsep.join([str(ROOT / "clients" / "python"), str(ROOT)])
    return {**kept, "FORGETTING_URL": url, "PYTHONPATH": path, "COLUMNS": "100", **more}


def line(*options: str, base: str = "tiny_base", adapter: str = "tiny_base") -> list[str]:
    """A gate that the client tests' service admits: a model of the base's own layout."""
    asked = ["--adapter", adapter, "--base", base, "--corpus", "corpus.txt", "--context", "64"]
    return [FORGETTING, "gate", *asked, *options]


def run(
    words: list[str], url: str, folder: Path, *, policy: str = POLICY, **more: str
) -> subprocess.CompletedProcess[str]:
    (folder / "forgetting.yml").write_text(policy)
    options = {"capture_output": True, "text": True, "timeout": 90}
    return subprocess.run(words, cwd=folder, env=environment(url, **more), **options)


@contextmanager
def worker(store: Store, act: Act) -> Iterator[None]:
    """Does `act` once a job is queued, in a thread."""
    stop = threading.Event()

    def wait() -> None:
        while not stop.is_set():
            if store.list_jobs(limit=1, status="queued")[0]:
                act(store)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def ending(*verdicts: str, **changes: Any) -> Act:
    """Ends the gate with checks that came to these."""
    checks = [check(verdict, id=f"check-{i}") for i, verdict in enumerate(verdicts)]
    return lambda store: end_gate(store, *checks, **changes)


def ended(service: Any, *verdicts: str, **changes: Any) -> str:
    """The id of a gate with such an end, to look at."""
    base = service.spec["base_model"]
    spec = {
        "base_model": base,
        "adapters": [{"path": base}],
        "evaluation": {"corpus": "corpus.txt", "context": 64},
        "policy": {"checks": [{"id": "mean", "metric": "kl", "fail_above": 0.08}]},
    }
    gate: str = service.client.create_gate(spec)["id"]
    ending(*verdicts, **changes)(service.store)
    return gate
