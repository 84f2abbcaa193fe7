"""When a training run of somebody else's is measured, and on how much. Both follow from its
arguments alone: the same run is measured alike on every machine."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers import IntervalStrategy, TrainerState, TrainingArguments

from service.schedule import log_spaced_steps

SHARE = 0.05
"""Of the run's computing that all measurements together may take, a training step counted as three
forward passes. Counted, not clocked: heads are scored in float32, twice."""
FEWEST, MOST = 8, 256
"""Windows, where the share decides."""
SAMPLED_ROWS = 64


def occasions(
    wanted: Sequence[int] | None, args: TrainingArguments, state: TrainerState, loader: DataLoader
) -> frozenset[int]:
    """Steps to measure at: the given ones, else log-spaced ones. The last step always is.

    Where the trainer evaluates now and then, log-spaced steps move to the nearest evaluation, whose
    loss they need to become law points: forcing another one would draw from the run's generators.
    """
    last = state.max_steps
    if wanted is not None:
        return frozenset({step for step in wanted if step < last} | {last})
    steps = log_spaced_steps(last)
    every = _evaluated_every(args, state, loader)
    if every is None or every > last:
        return frozenset(steps)
    most = last // every
    return frozenset({every * min(most, max(1, round(step / every))) for step in steps} | {last})


def _evaluated_every(
    args: TrainingArguments, state: TrainerState, loader: DataLoader
) -> int | None:
    """Update steps from one evaluation to the next; None where there is none, or no rhythm."""
    if args.eval_strategy == IntervalStrategy.STEPS:
        return int(state.eval_steps)
    if args.eval_strategy == IntervalStrategy.EPOCH and _sized(loader):
        return math.ceil(len(loader) / args.gradient_accumulation_steps)
    return None


def affordable(
    args: TrainingArguments,
    state: TrainerState,
    loader: DataLoader,
    *,
    n_readings: int,
    context: int,
) -> int:
    """Windows of `context` tokens that `n_readings`, and the base's own pass, can take each."""
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    trained = rows * state.max_steps * (_row_tokens(loader) or context)
    windows = SHARE * 3 * trained / (context * (n_readings + 1))
    return int(min(MOST, max(FEWEST, windows)))


def _row_tokens(loader: DataLoader) -> float | None:
    """Mean length of rows spread evenly over the dataset, where it holds tokens."""
    dataset: Any = getattr(loader, "dataset", None)
    if "input_ids" not in (getattr(dataset, "column_names", None) or ()) or not _sized(loader):
        return None
    n = min(len(dataset), SAMPLED_ROWS)
    chosen = np.linspace(0, len(dataset) - 1, n).astype(int)
    return float(np.mean([len(dataset[int(row)]["input_ids"]) for row in chosen]))


def _sized(loader: DataLoader) -> bool:
    """Not so where the dataset is a stream."""
    return hasattr(getattr(loader, "dataset", None), "__len__")
