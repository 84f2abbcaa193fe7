"""A model in training, compared with its base over the same few windows again and again.

The base's rows are taken once and kept in memory: no cache, no digest of weights that may exist
nowhere but in this process.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from worker.divergence import Head, base_rows
from worker.head import head_of
from worker.pace import Pace, within_memory
from worker.score import (
    BasePass,
    exact_float32,
    forward,
    named,
    noise_of,
    score_candidate,
)
from worker.windows import Windows

BATCH_TOKENS, LOGITS = 4096, {"cpu": 2**19, "cuda": 2**25}
"""Less at a time than a job of its own takes: the optimiser holds most of the memory."""
FIELDS = ("kl", "ce_soft", "ce_hard", "same_top", "nll_tuned")

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """Means over all scored positions of the probe's windows, nats per token."""

    kl: float
    ce_soft: float
    ce_hard: float
    same_top: float
    """Share of positions."""
    nll_tuned: float
    kl_p99: float
    """The 99th percentile of KL over positions, nats."""


@dataclass(frozen=True)
class Probe:
    windows: Windows
    base: BasePass
    """Its head's weight stays in the model's own dtype between two readings."""
    warn: Warn

    def read(self, model: PreTrainedModel) -> Reading:
        """Raises AdapterUnreadable where the model computes NaN or infinity."""
        head = replace(self.base.head, weight=self.base.head.weight.float())
        base = replace(self.base, head=head)

        def attempt(pace: Pace) -> dict[str, NDArray[Any]]:
            return score_candidate(model, self.windows, replace(base, pace=pace))

        scores = within_memory(attempt, base.pace, warn=self.warn)
        means = {name: float(scores[name].mean()) for name in FIELDS}
        return Reading(**means, kl_p99=float(np.percentile(scores["kl"], 99)))


def probe_of(model: PreTrainedModel, windows: Windows, *, warn: Warn) -> Probe:
    """`model` is the base: an adapter over it is switched off.

    Both logits are made at every position (route `logits`), so that any pair of heads compares.
    Raises what `head_of` does.
    """
    head = head_of(model)
    chunk = max(64, LOGITS.get(model.device.type, 2**25) // len(head.weight))

    def attempt(pace: Pace) -> BasePass:
        return _base(model, windows, head, pace)

    base = within_memory(attempt, Pace(BATCH_TOKENS, chunk), warn=warn)
    kept = head.weight if head.source is None else head.source.detach()
    return Probe(windows, replace(base, head=replace(head, weight=kept)), warn)


def _base(model: PreTrainedModel, windows: Windows, head: Head, pace: Pace) -> BasePass:
    rows: dict[str, NDArray[Any]] = {}
    with exact_float32():
        for chosen in windows.batches(pace.batch_tokens):
            batch = forward(model, windows, chosen)
            found = base_rows(batch.hidden, head, batch.targets, chunk=pace.chunk, route="logits")
            for name, values in named(found):
                if name not in rows:
                    rows[name] = np.empty((windows.n_positions, *values.shape[1:]), values.dtype)
                rows[name][batch.positions] = values
        noise = noise_of(model, windows, head, rows, "logits", pace)
    return BasePass(
        rows=rows,
        route="logits",
        head=head,
        pace=pace,
        noise_kl=noise["kl"],
        noise_max_abs=noise["max_abs"],
        noise_positions=noise["n_positions"],
        forward_tokens=len(windows.ids),
    )
