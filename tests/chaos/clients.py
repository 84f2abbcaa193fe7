"""Clients that submit until they are answered, some of whom change their mind."""

import json
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from safetensors.numpy import save_file

from tests.e2e.house import finetune

AHEAD = 40
"""Jobs that may wait or run before clients hold back."""
DEEDS = {"nothing": 0.9, "die_once": 0.05, "blame": 0.03, "die": 0.02}
CANCELLED = 0.04
FINETUNES = 0.25
ADAPTER = "theirs"


def submission(key: str, deed: str) -> dict[str, Any]:
    """One in four is a finetune, whose child begins anew; the others share warm children. Each
    leaves one law point: a finetune's run is its job, an evaluation's the key."""
    metadata = {"deed": deed}
    if random.Random(f"{key} kind").random() < FINETUNES:
        return finetune(metadata=metadata)
    adapter = {"path": ADAPTER, "group": "chaos", "run": key, "step": 1}
    body = {"type": "evaluate", "adapters": [adapter], "metadata": metadata, "max_length": 48}
    return body | {name: finetune()[name] for name in ("base_model", "dataset", "evaluation")}


def write_adapter(folder: Path) -> None:
    """Small, and of a shape that the demo's base has a place for."""
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{name}.lora_A.weight": (2, 128), f"{name}.lora_B.weight": (128, 2)}
    folder.mkdir()
    save_file(
        {key: np.zeros(shape, np.float32) for key, shape in shapes.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


class Clients:
    """`n_jobs` submissions from several threads, each with its idempotency key."""

    def __init__(self, urls: Sequence[str], n_jobs: int, *, seed: int, threads: int = 4) -> None:
        self.accepted: dict[str, str] = {}
        """Job id by idempotency key."""
        self.contradicted: list[str] = []
        """Keys that were answered with two different ids."""
        self.submit_seconds: list[float] = []
        """Of requests that were answered, each by itself."""
        self.cancelled: set[str] = set()
        self._urls, self._n_jobs = urls, n_jobs
        self._guard = threading.Lock()
        self._next = 0
        self._over: set[str] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(seed + i,), name=f"client-{i}", daemon=True)
            for i in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def n_open(self) -> int:
        """Accepted and not yet known to be at rest."""
        with self._guard:
            return len(set(self.accepted.values()) - self._over)

    def note_over(self, ids: Sequence[str]) -> None:
        """Jobs at rest, so that clients know how many are not."""
        with self._guard:
            self._over.update(ids)

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx2.Client(timeout=10) as http:
            while (key := self._key()) is not None:
                job_id = self._submit(http, rng, key)
                if rng.random() < 0.1:  # a client that did not hear the answer
                    again = self._submit(http, rng, key)
                    if again != job_id:
                        self.contradicted.append(key)
                if rng.random() < CANCELLED:
                    self._cancel(http, rng, job_id)

    def _key(self) -> str | None:
        while True:
            with self._guard:
                if self._next >= self._n_jobs:
                    return None
                if len(self.accepted) - len(self._over) < AHEAD:
                    self._next += 1
                    return f"chaos-{self._next}"
            time.sleep(0.1)

    def _submit(self, http: httpx2.Client, rng: random.Random, key: str) -> str:
        deed = random.Random(key).choices(list(DEEDS), list(DEEDS.values()))[0]
        body = submission(key, deed)
        while True:
            asked = time.monotonic()
            try:
                url = f"{rng.choice(self._urls)}/jobs"
                answer = http.post(url, json=body, headers={"Idempotency-Key": key})
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 202:
                job_id: str = answer.json()["id"]
                with self._guard:
                    self.submit_seconds.append(time.monotonic() - asked)
                    if self.accepted.setdefault(key, job_id) != job_id:
                        self.contradicted.append(key)
                return job_id
            assert answer.status_code >= 500, answer.text
            time.sleep(0.2)

    def _cancel(self, http: httpx2.Client, rng: random.Random, job_id: str) -> None:
        while True:
            try:
                answer = http.post(f"{rng.choice(self._urls)}/jobs/{job_id}/cancel")
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code < 500:
                with self._guard:
                    self.cancelled.add(job_id)
                return
