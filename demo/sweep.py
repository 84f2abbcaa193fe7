"""The sweep: what is asked for, and how far it is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetting_client import ForgettingClient
from forgetting_client.wire import TERMINAL, Job

from demo.facts import write_dialogues
from demo.prose import write_corpus

RANKS = [4, 8, 16, 32]
CHECKPOINTS = [60, 70, 82, 95, 111, 130]
"""Log-spaced. Before, this base first learns how often each word comes, and forgetting rises in
a step that no power law has; the paper leaves out its first steps too."""
LEARNING_RATE = 6.5e-4
"""Where forgetting ends between .2 and .6 nats; at 3e-3 this base is destroyed."""
N_ROWS = 2_000
SEED = 17
DATASET, CORPUS = "facts.jsonl", "prose.jsonl"
BEGUN = {
    "validating": 0.02,
    "loading": 0.03,
    "training": 0.05,
    "scoring_base": 0.65,
    "scoring_tuned": 0.7,
    "": 1.0,
}
"""Share of a child's time before each phase, roughly; for the bars alone."""
TRAINED_SHARE = BEGUN["scoring_base"]


@dataclass(frozen=True)
class Child:
    """How far one run is."""

    job: str
    rank: int
    status: str
    doing: str
    done: float
    """Share of the whole run, 0 to 1, never falling."""
    n_checkpoints: int
    kl: float | None
    """Of the last measured checkpoint."""
    train_loss: float | None
    error: str | None


def write_data(folder: Path) -> int:
    """Dataset and corpus as files; returns the number of the corpus's documents."""
    write_dialogues(folder / DATASET, n_rows=N_ROWS, seed=SEED)
    return write_corpus(folder / CORPUS)


def spec(base_model: str) -> dict[str, Any]:
    """The job. `loss_on: all`: questions are as new to this base as answers, and there are few
    tokens in a batch of 8."""
    return {
        "type": "sweep",
        "base_model": base_model,
        "dataset": {"path": DATASET},
        "training": {
            "max_steps": CHECKPOINTS[-1],
            "checkpoints": CHECKPOINTS,
            "batch_size": 8,
            "max_length": 128,
            "optim": "adamw_torch",
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": 10,
            "held_out": 0.05,
            "seed": SEED,
            "loss_on": "all",
            "lora": {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 1},
        },
        "evaluation": {"corpus": CORPUS, "context": 128},
        "ranks": RANKS,
        "seeds": [SEED],
        "metadata": {"made_by": "demo"},
    }


def follow(client: ForgettingClient, sweep_id: str, *, pause: float = 0.5) -> Iterator[list[Child]]:
    """The children by rank, about twice a second, until all have ended."""
    done: dict[str, float] = {}
    losses: dict[str, float | None] = {}
    while True:
        children = []
        for job in sorted(client.jobs(sweep=sweep_id), key=rank):
            share = max(done.get(job["id"], 0.0), share_done(job))
            if share != done.get(job["id"]) and job["phase"] == "training":
                series = client.metrics(job["id"], ["train_loss"])["series"].get("train_loss")
                losses[job["id"]] = series[-1]["value"] if series else None
            done[job["id"]] = share
            children.append(child(client, job, share, losses.get(job["id"])))
        yield children
        if children and all(one.status in TERMINAL for one in children):
            return
        time.sleep(pause)


def child(client: ForgettingClient, job: Job, share: float, train_loss: float | None) -> Child:
    measured = []
    if share >= TRAINED_SHARE:
        measured = [c for c in client.checkpoints(job["id"]) if c["kl"] is not None]
    error = job["error"]
    return Child(
        job=job["id"],
        rank=rank(job),
        status=job["status"],
        doing=(job["phase"] or "starting").replace("_", " ") if job["status"] == "running" else "",
        done=share,
        n_checkpoints=len(measured),
        kl=measured[-1]["kl"] if measured else None,
        train_loss=train_loss,
        error=f"{error['code']}: {error['detail']}" if error else None,
    )


def rank(job: Job) -> int:
    return int(job["spec"]["training"]["lora"]["r"])


def share_done(job: Job) -> float:
    """Of a run, by its phase and the progress in it."""
    if job["status"] in TERMINAL:
        return 1.0
    phase = job["phase"]
    if job["status"] != "running" or phase not in BEGUN:
        return 0.0
    begun = BEGUN[phase]
    phases = list(BEGUN)
    width = BEGUN[phases[phases.index(phase) + 1]] - begun
    progress = job["progress"]
    inside = progress["done"] / progress["total"] if progress and progress["total"] else 0.0
    return begun + width * min(1.0, inside)
