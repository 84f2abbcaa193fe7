"""A service over HTTP that has something of everything, for requests made from its document."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from service.app import create_app
from service.settings import Settings
from service.store import Store
from tests.law_points import grid
from tests.model_folders import write_adapter, write_model
from tests.results import run_next
from tests.running import free_port
from tests.sent_adapters import files_of, send

KEY = "a-bootstrap-key-of-enough-letters"
MODEL, DATASET, CORPUS = "Qwen/Qwen3-0.6B", "orca-sample.jsonl", "wikitext.txt"
"""The document's own examples."""
RANKS = (4, 8, 16)


class Unheard:
    """A broker without anybody who listens: what is queued stays queued."""

    def __call__(self, job_id: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None: ...


@dataclass(frozen=True)
class Served:
    url: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    """By path parameter: what is there when it starts."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """It needs `KEY`, and tells of one idle worker."""
    settings = rooted(folder)
    store = Store(settings.database, settings)
    store.migrate()
    port = free_port()
    app = create_app(store, settings, Unheard())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.02)
        url = f"http://127.0.0.1:{port}"
        with _beating(store):
            yield Served(url, furnish(url, store, folder))
    finally:
        server.should_exit = True
        thread.join()
        store.dispose()


def rooted(folder: Path) -> Settings:
    write_model(folder / "models" / MODEL, config={"max_position_embeddings": 1024})
    data = folder / "data"
    data.mkdir()
    rows = [{"text": f"A sentence with the number {i}."} for i in range(40)]
    (data / DATASET).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / CORPUS).write_text("One page of prose, long enough to be scored.\n")
    home = folder / "home"
    home.mkdir()
    return Settings(
        home=home,
        model_roots=[folder / "models"],
        data_roots=[data],
        allow_hub=False,
        api_key=KEY,  # type: ignore[arg-type]
        sweep_seconds=3600,
    )


def furnish(url: str, store: Store, folder: Path) -> dict[str, list[str]]:
    """Finished jobs of one recipe, one that failed, one queued; a gate, an adapter, laws, a key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=300) as web:

        def post(path: str, body: Any) -> str:
            answer = web.post(path, json=body)
            assert answer.is_success, answer.text
            made = answer.json()
            return str(made["id"] if "id" in made else made["data"][0]["id"])

        done = []
        for rank in RANKS:
            post("/v1/jobs", spec(training={"max_steps": 100, "lora": {"r": rank}}))
            done.append(run_next(store))
        failed = post("/v1/jobs", spec())
        claim = store.claim("worker-1")
        assert claim is not None
        store.fail(claim, {"code": "training_diverged", "detail": "NaN", "class": "user"})
        candidate = {"adapters": [{"job": done[0]}], "base_model": MODEL}
        policy = {"checks": [{"id": "forgetting", "metric": "kl", "fail_above": 0.1}]}
        gate = post("/v1/gates", {**candidate, "evaluation": evaluation(), "policy": policy})
        adapter = send(web, files_of(write_adapter(folder / "mine")), base_model=MODEL)
        assert adapter.status_code == 201, adapter.text
        laws = [
            post("/v1/laws", {"points": grid(), "metric": "kl", "forms": [form]})
            for form in ("linear", "joint")
        ]
        key = post("/v1/keys", {"owner": "team", "name": "CI"})
    return {
        "job_id": [*done, failed],
        "gate_id": [gate],
        "adapter_id": [adapter.json()["id"]],
        "law_id": laws,
        "key_id": [key],
        "code": ["not_found", "validation_error"],
    }


def spec(**change: Any) -> dict[str, Any]:
    return {
        "base_model": MODEL,
        "dataset": {"path": DATASET},
        "evaluation": evaluation(),
        "training": {"max_steps": 100, "max_length": 64},
        **change,
    }


def evaluation() -> dict[str, Any]:
    return {"corpus": CORPUS, "context": 64}


@contextlib.contextmanager
def _beating(store: Store) -> Iterator[None]:
    """A worker that has nothing to do, so that the service is ready."""
    over = threading.Event()

    def beat() -> None:
        while True:
            store.beat_worker("worker-1", state="idle")
            if over.wait(2.0):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
