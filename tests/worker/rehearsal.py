"""A training run that a test can watch, stop and repeat."""

import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.schemas.spec import Training
from service.settings import Settings
from worker.adapter import WEIGHTS_FILE
from worker.data import TokenisedDataset
from worker.model import Base
from worker.train import Trained, train


def spec(**changes: Any) -> Training:
    lora = {"r": 4, **changes.pop("lora", {})}
    fields = {"max_steps": 4, "batch_size": 8, "max_length": 96, "learning_rate": 1e-2}
    return Training.model_validate({**fields, "warmup_steps": 0, "lora": lora, **changes})


class Run:
    """One training in its own folder, with what it reported."""

    def __init__(self, base: Base, dataset: TokenisedDataset, folder: Path) -> None:
        self.base, self.dataset, self.folder = base, dataset, folder
        self.events: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self.stop_at: int | None = None
        self.save_every = 1e9

    def __call__(self, training: Training) -> Trained:
        return train(
            self.base,
            self.dataset,
            training,
            workdir=self.folder,
            report=self._report,
            stop=self.stop,
            settings=Settings(resume_checkpoint_seconds=self.save_every),
        )

    def _report(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["kind"] == "progress" and event["done"] == self.stop_at:
            self.stop.set()

    def series(self, name: str) -> list[float]:
        found = [e for e in self.events if e["kind"] == "metric" and e["name"] == name]
        assert [e["step"] for e in found] == sorted({e["step"] for e in found})
        return [e["value"] for e in found]


def other(run: Run, name: str) -> Run:
    return Run(run.base, run.dataset, run.folder.with_name(name))


def tensors(trained: Trained, index: int = -1) -> dict[str, Tensor]:
    return load_file(trained.adapters[index].path / WEIGHTS_FILE)


def same(a: Trained, b: Trained) -> bool:
    left, right = tensors(a), tensors(b)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
