"""Windows read when somebody asks for them: each by the base and by every candidate, side by side.

The base's rows come from its cached pass where there is one; else the base reads the window too,
in the same batch as the candidates, so that whatever does not differ cancels exactly.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import AdapterUnreadable, ModelUnavailable
from service.laws.sequential import Indices
from service.laws.statistic import MEANS
from service.schemas.result import NoiseFloor
from worker.divergence import BaseRows, Route, base_rows, compare
from worker.grafts import Grafts
from worker.pace import Pace, within_memory
from worker.score import exact_float32, forward, noise_of
from worker.scored import Batch
from worker.stored import named, rows_at
from worker.windows import Windows

Columns = dict[str, NDArray[Any]]
"""Arrays over positions: `PositionScores` of the candidate by field name, the base's `BASE`
fields, and of a baseline `metric@name`, for means."""
CANDIDATE = ""
"""The candidate's name among the grafts; baselines have their policy's."""
BASE = ("h_base", "nll_base", "top_id", "top_p")
NOISE_WINDOWS = 8


@dataclass
class Reader:
    grafts: Grafts
    windows: Windows
    pace: Pace
    """Halved for good where a GPU's memory runs out."""
    rows: Mapping[str, NDArray[Any]] | None = None
    """The whole base pass, if it is there already."""
    route: Route = "logits"
    """Of `rows`."""
    reverse: bool = False
    warn: Callable[[str], None] = lambda message: None
    noise_tokens: int = field(default=0, init=False)
    """What the base read to measure its noise."""

    def read(self, windows: Indices) -> Batch:
        """Their positions, window after window. Raises AdapterUnreadable, ModelUnavailable."""
        began = time.monotonic()

        def attempt(pace: Pace) -> Columns:
            self.pace = pace
            parts = [self._part(part) for part in self._fitting(windows)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        with exact_float32():
            found = within_memory(attempt, self.pace, warn=self.warn)
        _require_finite(found)
        tokens = int(self.windows.lengths[windows].sum())
        return Batch(
            windows,
            found,
            base_tokens=tokens if self.rows is None else 0,
            tuned_tokens=tokens * len(self.grafts.names),
            seconds=time.monotonic() - began,
        )

    def noise(self) -> NoiseFloor:
        """The base against itself on a few windows, as `worker.score.noise_of` has it."""
        n = len(self.windows)
        chosen = np.unique(np.linspace(0, n - 1, NOISE_WINDOWS).astype(np.int64))
        few = self.windows.only(chosen)
        model, head, store = self.grafts.base.model, self.grafts.head, Columns()

        def attempt(pace: Pace) -> dict[str, Any]:
            self.pace = pace
            for part in few.batches(pace.batch_tokens):
                batch = forward(model, few, part)
                rows = base_rows(
                    batch.hidden, head, batch.targets, chunk=pace.chunk, route="logits"
                )
                for name, values in named(rows):
                    shape = (few.n_positions, *values.shape[1:])
                    store.setdefault(name, np.empty(shape, values.dtype))
                    store[name][batch.positions] = values
            return noise_of(model, few, head, store, "logits", pace)

        with exact_float32():
            found = within_memory(attempt, self.pace, warn=self.warn)
        self.noise_tokens = 2 * len(few.ids)
        return NoiseFloor(**found)

    def _fitting(self, windows: Indices) -> list[Indices]:
        longest = int(self.windows.lengths[windows].max())
        size = max(1, self.pace.batch_tokens // longest)
        return [windows[start : start + size] for start in range(0, len(windows), size)]

    def _part(self, windows: Indices) -> Columns:
        rows = self._base_rows(windows)
        found = {name: values for name, values in named(rows) if name in BASE}
        base_head = None if self.route == "identity" else self.grafts.head
        for name in self.grafts.names:
            with self.grafts.on(name) as (model, head):
                hidden = forward(model, self.windows, windows).hidden
                scores = compare(
                    hidden,
                    head,
                    rows,
                    chunk=self.pace.chunk,
                    base_head=base_head,
                    reverse=self.reverse,
                )
            for metric, values in named(scores):
                if name == CANDIDATE:
                    found[metric] = values
                elif metric in MEANS:
                    found[f"{metric}@{name}"] = values
        return found

    def _base_rows(self, windows: Indices) -> BaseRows:
        model = self.grafts.base.model
        if self.rows is not None:
            starts = self.windows.position_starts
            positions = np.concatenate([np.arange(starts[w], starts[w + 1]) for w in windows])
            return rows_at(self.rows, positions, model)
        batch = forward(model, self.windows, windows)
        return base_rows(
            batch.hidden, self.grafts.head, batch.targets, chunk=self.pace.chunk, route="logits"
        )


def per_window(columns: Columns, sizes: NDArray[np.int64]) -> list[Columns]:
    """The same, window by window; `sizes` are their positions."""
    edges = np.cumsum(sizes)[:-1]
    apart: dict[str, list[NDArray[Any]]] = {
        name: np.split(values, edges) for name, values in columns.items()
    }
    return [dict(zip(apart, row, strict=True)) for row in zip(*apart.values(), strict=True)]


def _require_finite(columns: Columns) -> None:
    if not np.isfinite(columns["h_base"]).all():
        raise ModelUnavailable("the base's logits are not finite", param="base_model")
    for name, values in columns.items():
        lost = int((~np.isfinite(values)).sum()) if name.startswith("kl") else 0
        if lost:
            _, _, baseline = name.partition("@")
            raise AdapterUnreadable(
                f"the logits are NaN or infinite at {lost} of {len(values)} positions",
                param=f"policy.baselines.{baseline}" if baseline else "adapters.0",
            )
