"""What happens after every training step: report, judge the loss, keep adapters, checkpoint."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from service.errors import TrainingDiverged
from worker.adapter import save_adapter, trainable_params
from worker.checkpoints import digests_of, prune, seal

Report = Callable[[dict[str, Any]], None]

LOSS_WINDOW = 10
"""Steps over which a checkpoint's train loss is averaged: one batch says little."""
EXPLODED_STEPS = 3
"""So many steps running above `LossWatch.limit`: one step may be an odd batch."""


@dataclass(frozen=True)
class SavedAdapter:
    """One measured checkpoint."""

    step: int
    path: Path
    trainable_params: int
    """P: values in the adapter's tensors."""
    train_loss: float
    """Mean over the last LOSS_WINDOW steps, nats per supervised token."""
    digests: dict[str, str]
    """sha256 by file name, taken when it was kept."""


@dataclass
class LossWatch:
    """The run's recent losses, and whether they say that it diverged."""

    guessing: float
    """Loss of a uniform guess: ln(vocabulary size), nats."""
    first: float | None = None
    bad_steps: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=LOSS_WINDOW))

    def add(self, step: int, loss: float, grad_norm: float | None) -> None:
        """Raises TrainingDiverged: a loss or gradient norm that is not finite, or an explosion."""
        norm = 0.0 if grad_norm is None else grad_norm
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise _diverged(f"loss {loss}, gradient norm {norm} at step {step}", step)
        self.first = loss if self.first is None else self.first
        limit = self.limit(self.first)
        self.bad_steps = self.bad_steps + 1 if loss > limit else 0
        if self.bad_steps >= EXPLODED_STEPS:
            raise _diverged(
                f"loss {loss:.4g} at step {step}, above {limit:.4g} for {EXPLODED_STEPS} steps; "
                f"it began at {self.first:.4g}",
                step,
            )
        self.recent.append(loss)

    def limit(self, first: float) -> float:
        """Nats above which a run that began at `first` explodes: 2 more and worse than guessing,
        or where it began low, 5 more than three times that."""
        return min(3 * first + 5, max(first + 2, self.guessing + 0.5))

    def mean(self) -> float:
        return math.fsum(self.recent) / len(self.recent)

    def to_json(self) -> dict[str, Any]:
        return {
            "guessing": self.guessing,
            "first": self.first,
            "bad_steps": self.bad_steps,
            "recent": list(self.recent),
        }

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "LossWatch":
        recent = deque(body["recent"], maxlen=LOSS_WINDOW)
        return cls(body["guessing"], body["first"], body["bad_steps"], recent)


@dataclass
class Watch(TrainerCallback):
    """Trainer's eyes and hands. Order within a step: judge, report, keep adapter, checkpoint."""

    keep_at: frozenset[int]
    checkpoints: Path
    """Measured adapters, one folder per step."""
    resume: Path
    base_name: str
    rank: int
    key: str
    max_steps: int
    save_every_seconds: float
    report: Report
    stop: threading.Event
    losses: LossWatch
    kept: list[SavedAdapter]
    stopped_at: int | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        model: PeftModel,
        **_: Any,
    ) -> None:
        if "loss" not in logs:  # the summary at the end of training
            return
        step = state.global_step
        state.log_history.clear()  # the series live in the reports, not in every checkpoint
        self.losses.add(step, logs["loss"], logs.get("grad_norm"))
        named = {"train_loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
        for name, key in named.items():
            self.report({"kind": "metric", "name": name, "step": step, "value": logs.get(key)})
        self.report({"kind": "progress", "done": step, "total": self.max_steps, "unit": "steps"})
        if step in self.keep_at:
            self._keep(model, step)
        if self.stop.is_set():
            self.stopped_at = step
            control.should_save = control.should_training_stop = True
        elif time.monotonic() - self._saved_at >= self.save_every_seconds:
            control.should_save = True
        if step == self.max_steps:
            control.should_save = True  # a job that dies while scoring does not train again

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        seal(
            self.resume / f"checkpoint-{state.global_step}",
            step=state.global_step,
            key=self.key,
            state={
                "losses": self.losses.to_json(),
                "train_loss": {str(adapter.step): adapter.train_loss for adapter in self.kept},
            },
            measured={adapter.path.name: adapter.digests for adapter in self.kept},
        )
        prune(self.resume)
        self._saved_at = time.monotonic()

    def _keep(self, model: PeftModel, step: int) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not bool(parameter.isfinite().all()):
                raise _diverged(f"{name} holds NaN or infinity after step {step}", step)
        folder = self.checkpoints / step_name(step)
        save_adapter(model, folder, base_name=self.base_name)
        saved = SavedAdapter(
            step, folder, trainable_params(folder), self.losses.mean(), digests_of(folder)
        )
        self.kept.append(saved)
        self.report(
            {
                "kind": "checkpoint",
                "step": step,
                "adapter": f"{self.checkpoints.name}/{folder.name}",
                "trainable_params": saved.trainable_params,
                "rank": self.rank,
                "train_loss": saved.train_loss,
                "heldout_loss": None,
                "kl": None,
                "ce_soft": None,
                "same_top": None,
            }
        )


def step_name(step: int) -> str:
    """Folder of a measured adapter: `step-000140`."""
    return f"step-{step:06d}"


def _diverged(message: str, step: int) -> TrainingDiverged:
    return TrainingDiverged(message, param="training.learning_rate", step=step)
