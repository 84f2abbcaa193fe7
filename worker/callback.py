"""`ForgettingCallback`: how much a model forgets while somebody else's script trains it.

It hears of steps from `transformers.Trainer`, hence TRL, axolotl and LLaMA-Factory. Training goes
on from the very bits that it would have without.
"""

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from service.errors import AdapterUnreadable, InvalidSpec
from worker.adapter import save_adapter
from worker.against import base_of, corpus_for, inner, refuse, tokenizer_of
from worker.law_lines import LawLines
from worker.occasions import affordable, occasions
from worker.probe import Probe, Reading, probe_of
from worker.sample import sampled
from worker.together import together
from worker.undisturbed import undisturbed
from worker.update import ADAPTER, delta_norm
from worker.watch import step_name
from worker.windows import cut

CONTEXT = 512
LOG = logging.getLogger("forgetting")


class ForgettingCallback(TrainerCallback):
    """Exact KL(base || tuned) over the full vocabulary, in nats per token, at log-spaced steps.

        trainer.add_callback(ForgettingCallback("wikitext.txt", limit=0.1))

    corpus: a file, a hub data set's name, or a list of texts. Of its windows of `context` tokens
    (512, or what the model can read) a sample fixed by `seed` is scored: `windows` of them, "all",
    or by default as many as 5 % of the run's computing pays for, at least 8. The values are exact
    for these windows.

    limit: the KL above which training ends, or with `stop=False` goes on; either way the last
    adapter at or below it is kept, and `kept` is its folder.
    steps: where to measure instead of log-spaced.
    reference: the base's folder or hub name; needed where there is no adapter to switch off.
    points, run: the file of law points (`forgetting-points.jsonl` in the trainer's output_dir), and
    the name of this run in them. A point needs a held-out loss: the trainer's own `ft_loss` metric
    at that step.

    Logged by the trainer: `forgetting/kl`, `/ce_soft`, `/ce_hard`, `/same_top`, `/nll_tuned`,
    `/kl_p99`, `/delta_norm`, `/seconds`; at the end `/share_of_time` and `/windows`.
    """

    kept: Path | None = None

    def __init__(
        self,
        corpus: str | Path | Sequence[str] = "wikitext-103",
        *,
        limit: float | None = None,
        stop: bool = True,
        steps: Sequence[int] | None = None,
        windows: int | Literal["all"] | None = None,
        context: int | None = None,
        split: str = "test",
        seed: int = 17,
        reference: str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        points: str | Path | None = None,
        run: str | None = None,
        ft_loss: str = "eval_loss",
    ) -> None:
        if limit is not None and not limit > 0:
            raise InvalidSpec(f"limit {limit}: it must be above 0 nats per token", param="limit")
        if isinstance(windows, int) and windows < 1:
            raise InvalidSpec(f"windows {windows}: at least 1", param="windows")
        self.corpus, self.split, self.seed = corpus, split, seed
        self.limit, self.stop, self.steps = limit, stop, steps
        self.n_windows, self.context = windows, context
        self.reference, self.tokenizer = reference, tokenizer
        self.points, self.run, self.ft_loss = points, run, ft_loss

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        self._began, self._seconds = time.perf_counter(), 0.0
        self._trainer = _calling_trainer()
        refuse(self._trainer, model, self.reference)
        self._steps = occasions(self.steps, args, state, train_dataloader)
        self._params = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._pending: dict[str, Any] | None = None
        self._measured_at = state.global_step
        self.kept = None
        self._probe: Probe | None = None

        def begin() -> int:
            tokenizer = self.tokenizer or tokenizer_of(processing_class)
            context = _context(inner(model), self.context)
            windows = cut(corpus_for(self.corpus, self.split), tokenizer, context)
            if self.n_windows != "all":
                n = self.n_windows or affordable(
                    args, state, train_dataloader, n_readings=len(self._steps), context=context
                )
                windows = sampled(windows, n, seed=self.seed)
            with undisturbed(model), base_of(model, self.reference) as base:
                self._probe = probe_of(base, windows, warn=LOG.warning)
            path = self.points or Path(args.output_dir) / "forgetting-points.jsonl"
            self._lines = LawLines(Path(path), resumed_at=state.global_step)
            return len(windows)

        self._n_scored = together(args, state, begin)
        self._seconds += time.perf_counter() - self._began

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: Any,
    ) -> None:
        if state.global_step in self._steps:
            self._measure(args, state, control, model)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """The held-out loss that makes this step's reading a law point."""
        pending = self._pending
        if pending is None or pending["step"] != state.global_step or self.ft_loss not in metrics:
            return
        self._pending = None
        if state.is_world_process_zero:
            self._lines.add({**pending, "ft_loss": metrics[self.ft_loss]})

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: Any,
    ) -> None:
        # With the best model loaded, the weights are no longer those of the last step.
        if self._measured_at != state.global_step and not args.load_best_model_at_end:
            self._measure(args, state, control, model)
        share = self._seconds / (time.perf_counter() - self._began)
        told = {"forgetting/share_of_time": share, "forgetting/windows": self._n_scored}
        self._log(control, told)
        self._probe = None

    def _measure(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
    ) -> None:
        began, step = time.perf_counter(), state.global_step

        def read() -> tuple[Reading, float | None] | str:
            assert self._probe is not None
            with undisturbed(model):
                try:
                    reading = self._probe.read(inner(model))
                except AdapterUnreadable as error:
                    return error.message
                return reading, _update(model)

        found = together(args, state, read)
        self._measured_at = step
        seconds = time.perf_counter() - began
        self._seconds += seconds
        if isinstance(found, str):
            LOG.warning("step %d was not measured: %s", step, found)
            if self.limit is not None:
                self._over(control, f"nothing can be measured at step {step}")
            return
        reading, size = found
        values = {**asdict(reading), "delta_norm": size, "seconds": seconds}
        named = {f"forgetting/{name}": v for name, v in values.items() if v is not None}
        self._log(control, named)
        self._pending = self._point(args, model, step, reading, size)
        if self.limit is not None:
            if reading.kl <= self.limit:
                self._keep(args, state, model, step)
            else:
                said = f"kl {reading.kl:.4g} at step {step} is above the limit {self.limit:g}"
                self._over(control, said)

    def _over(self, control: TrainerControl, said: str) -> None:
        best = f"the last adapter within it: {self.kept}" if self.kept else "no adapter was within"
        LOG.warning("%s; %s%s", said, best, "; training ends" if self.stop else "")
        control.should_training_stop = control.should_training_stop or self.stop

    def _keep(
        self, args: TrainingArguments, state: TrainerState, model: nn.Module, step: int
    ) -> None:
        """Of a full model nothing is kept: the trainer's own checkpoints are there for that."""
        if not isinstance(model, PeftModel):
            return
        before, folder = self.kept, Path(args.output_dir) / "forgetting" / step_name(step)
        self.kept = folder
        if state.is_world_process_zero:
            folder.parent.mkdir(parents=True, exist_ok=True)
            name = model.peft_config[ADAPTER].base_model_name_or_path or ""
            save_adapter(model, folder, base_name=name)
            if before is not None and before != folder:
                shutil.rmtree(before, ignore_errors=True)

    def _point(
        self,
        args: TrainingArguments,
        model: nn.Module,
        step: int,
        reading: Reading,
        size: float | None,
    ) -> dict[str, Any]:
        config = model.peft_config[ADAPTER] if isinstance(model, PeftModel) else None
        rank = getattr(config, "r", None)
        named = f"{Path(args.output_dir).name}-r{rank}-lr{args.learning_rate:g}-seed{args.seed}"
        return {
            "run": self.run or named,
            "rank": rank,
            "trainable_params": self._params,
            "step": step,
            "ce_soft": reading.ce_soft,
            "kl": reading.kl,
            "ce_hard": reading.ce_hard,
            "learning_rate": args.learning_rate or None,
            "delta_norm": size,
        }

    def _log(self, control: TrainerControl, values: dict[str, float]) -> None:
        """As `Trainer.log` does, so that every reporter hears of it.

        Not a subclass's `log`: TRL's empties the means that it gathers for the next training log.
        And a log of ours must not pass for the one that is due.
        """
        due = control.should_log
        Trainer.log(self._trainer, values)
        control.should_log = due


def _update(model: nn.Module) -> float | None:
    lora = isinstance(model, PeftModel) and model.peft_config[ADAPTER].peft_type == "LORA"
    return delta_norm(model, model.peft_config[ADAPTER]) if lora else None


def _context(model: Any, asked: int | None) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT
    if asked is not None and asked > limit:
        raise InvalidSpec(f"context is {asked}; the model reads at most {limit} tokens")
    return asked or min(CONTEXT, limit)


def _calling_trainer() -> Trainer:
    """The trainer whose event this is: it hands its callbacks everything but itself."""
    frame = sys._getframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    raise InvalidSpec("ForgettingCallback works inside a transformers.Trainer only")
