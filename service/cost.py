"""What a run costs, before it runs: optimiser steps, and checkpoints measured.

Rank is left out: LoRA's own products are a few per cent of a step. Steps of one sweep see equally
many rows of at most equal length, so they count alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from service.schedule import measured_steps
from service.schemas.spec import FinetuneSpec

PASS_STEPS = 10.0
"""Steps that take about as long as measuring one checkpoint on corpus and held-out rows: 11 to 13
on the demo's base. It only weighs shares of progress; no bound rests on it."""


@dataclass(frozen=True)
class Cost:
    steps: int
    passes: int
    """Checkpoints measured. The base's own pass is made once, whatever follows, and left out."""

    @property
    def units(self) -> float:
        """In steps."""
        return self.steps + PASS_STEPS * self.passes


def cost_of(runs: Iterable[FinetuneSpec]) -> Cost:
    """Of all the runs together."""
    costs = [
        Cost(run.training.max_steps, len(measured_steps(run.training, run.evaluation)))
        for run in runs
    ]
    return Cost(sum(one.steps for one in costs), sum(one.passes for one in costs))


def share(part: Cost, whole: Cost) -> float:
    """At most this share of `whole` does `part` cost, however long a pass takes: a weighted mean
    of two ratios is never above the larger one."""
    return max(part.steps / whole.steps, part.passes / whole.passes)
