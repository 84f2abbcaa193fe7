"""LoRA fine-tuning with TRL, from a loaded base to measured adapters. On a CPU the same
spec gives the same bits, however often the run was stopped and resumed."""

import gc
import json
import math
import threading
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch

from service.errors import InvalidSpec, SystemFault
from service.schedule import checkpoint_steps
from service.schemas.spec import Training
from service.settings import Settings
from worker.adapter import trainable_params
from worker.checkpoints import Resume, drop_after, newest
from worker.data import TokenisedDataset
from worker.digest import digest_bytes
from worker.model import Base
from worker.pristine import pristine
from worker.schedule import RowOrder, micro_sizes
from worker.sft import make_trainer
from worker.watch import LossWatch, Report, SavedAdapter, Watch, step_name


class Released(Exception):  # nothing went wrong
    """Training was asked to stop, and has left a resume checkpoint at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"released at step {step}")
        self.step = step


@dataclass(frozen=True)
class Trained:
    adapters: list[SavedAdapter]
    """In order of steps; the last one is the finished adapter."""
    training_tokens: int
    """Tokens of all rows of all batches, padding not counted."""


def train(
    base: Base,
    dataset: TokenisedDataset,
    spec: Training,
    *,
    workdir: Path,
    report: Report,
    stop: threading.Event,
    settings: Settings,
) -> Trained:
    """Train `spec.max_steps` updates of exactly `spec.batch_size` rows each.

    Adapters are kept under workdir/artifacts/checkpoints/step-000140/, resume checkpoints under
    workdir/resume/; a whole one of the same run found there is continued. `base.model` comes out
    as it went in. Raises TrainingDiverged (naming step and loss), Released when `stop` is set.
    """
    for message in dataset.warnings:
        report({"kind": "warning", "message": message})
    sizes = micro_sizes(spec, base.device.type)
    for size, smaller in pairwise([*sizes, 0]):
        try:
            adapters = _attempt(base, dataset, spec, size, workdir, report, stop, settings)
            return Trained(adapters, _training_tokens(dataset, spec))
        except torch.OutOfMemoryError as error:
            if not smaller:
                raise _out_of_memory(spec, size) from error
            report({"kind": "warning", "message": f"out of memory at {size} rows; now {smaller}"})
        gc.collect()
        torch.cuda.empty_cache()
    raise AssertionError("unreachable: the last size returns or raises")


def _attempt(
    base: Base,
    dataset: TokenisedDataset,
    spec: Training,
    micro_batch_size: int,
    workdir: Path,
    report: Report,
    stop: threading.Event,
    settings: Settings,
) -> list[SavedAdapter]:
    folder, checkpoints = workdir / "resume", workdir / "artifacts" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    key = _run_key(base, dataset, spec)
    found = newest(folder, checkpoints, key=key)
    drop_after(folder, found.step if found else -1)
    if found:
        report({"kind": "log", "message": f"resumed from step {found.step}", "step": found.step})
    if stop.is_set():
        raise Released(found.step if found else 0)
    kept = _kept(checkpoints, found)
    if found and found.step == spec.max_steps:
        return kept
    watch = Watch(
        keep_at=frozenset(checkpoint_steps(spec)),
        checkpoints=checkpoints,
        resume=folder,
        base_name=base.name,
        rank=spec.lora.r,
        key=key,
        max_steps=spec.max_steps,
        save_every_seconds=settings.resume_checkpoint_seconds,
        report=report,
        stop=stop,
        losses=(
            LossWatch.from_json(found.state["losses"])
            if found
            else LossWatch(math.log(base.vocab_size))
        ),
        kept=kept,
    )
    with pristine(base.model):
        trainer = make_trainer(
            base, dataset, spec, micro_batch_size=micro_batch_size, folder=folder, watch=watch
        )
        trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
    if watch.stopped_at is not None:
        raise Released(watch.stopped_at)
    return watch.kept


def _run_key(base: Base, dataset: TokenisedDataset, spec: Training) -> str:
    """What must be equal for a checkpoint to be of this very run. How a batch is split is not."""
    recipe = spec.model_dump(exclude={"micro_batch_size", "gradient_checkpointing", "dtype"})
    packages = ("torch", "transformers", "trl", "peft", "accelerate")
    body = {
        "training": recipe,
        "base": base.digest,
        "tokenizer": base.tokenizer_digest,
        "dataset": dataset.digest,
        "dtype": str(base.dtype),
        "device": base.device.type,
        "versions": {name: version(name) for name in packages},
    }
    return digest_bytes(json.dumps(body, sort_keys=True).encode())


def _kept(checkpoints: Path, found: Resume | None) -> list[SavedAdapter]:
    """The measured adapters that a resumed run already has; `newest` has verified them."""
    losses = found.state["train_loss"] if found else {}
    digests = found.measured if found else {}
    paths = {int(step): checkpoints / step_name(int(step)) for step in losses}
    return [
        SavedAdapter(step, path, trainable_params(path), losses[str(step)], digests[path.name])
        for step, path in sorted(paths.items())
    ]


def _training_tokens(dataset: TokenisedDataset, spec: Training) -> int:
    draws = RowOrder(len(dataset.train), spec.max_steps * spec.batch_size, seed=spec.seed)
    return sum(dataset.train.length(index) for index in draws)


def _out_of_memory(spec: Training, size: int) -> InvalidSpec | SystemFault:
    message = f"out of GPU memory at {size} rows of up to {spec.max_length} tokens"
    if size > 1:
        return InvalidSpec(message, param="training.micro_batch_size")
    return SystemFault(f"{message}; try a smaller max_length or rank, or a larger GPU")
