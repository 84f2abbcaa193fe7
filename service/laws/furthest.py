"""The furthest place that keeps to a limit: the answer as a value, and the searches for it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from service.laws.predict import Prediction
from service.laws.quantities import Target

Axis = Literal["step", "rank", "trainable_params", "ft_loss"]
Outcome = Literal["found", "never_reached", "always_above", "no_interval"]
"""The limit is met inside the search; everything searched stays below it; everything is above;
the law has too few runs for intervals."""

GRID = 200
"""Places that a search looks at before the crossing is bisected."""


@dataclass(frozen=True)
class Furthest:
    """One answer: the furthest place that keeps to the limit, and what is expected there."""

    outcome: Outcome
    at: float | None
    """Step, rank or trainable_params, whole; or the lowest ft_loss. Null unless found."""
    reason: str | None
    """In words, where there is no answer."""
    prediction: Prediction | None
    """At the answer; without one, at the end of the search."""

    @property
    def extrapolating(self) -> bool:
        return self.prediction is not None and self.prediction.extrapolating

    def to_json(self) -> dict[str, Any]:
        asked = None if self.prediction is None else self.prediction.to_json()
        return {
            "outcome": self.outcome,
            "at": self.at,
            "reason": self.reason,
            "extrapolating": self.extrapolating,
            "prediction": asked,
        }


@dataclass(frozen=True)
class Inverse:
    """The two answers to one question."""

    metric: Target
    axis: Axis
    max_forgetting: float
    searched: tuple[float, float]
    """Ends of the search along the axis."""
    value: Furthest
    """By the curve: half of new runs forget more."""
    safe: Furthest
    """By the upper end of `pi95`."""

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "axis": self.axis,
            "max_forgetting": self.max_forgetting,
            "searched": list(self.searched),
            "value": self.value.to_json(),
            "safe": self.safe.to_json(),
        }


def first_within(within: Callable[[float], bool], first: float, last: float) -> float | None:
    """The least number that is within, as far as a fine grid can see; `first` is not."""
    grid = np.linspace(first, last, GRID)
    for outside, inside in pairwise(grid.tolist()):
        if within(inside):
            for _ in range(60):
                middle = (inside + outside) / 2
                inside, outside = (middle, outside) if within(middle) else (inside, middle)
            return float(inside)
    return None


def last_within(within: Callable[[float], bool], span: tuple[int, int]) -> int | None:
    """The largest whole number of the span that is within, as far as a fine grid can see."""
    first, last = span
    grid = np.unique(np.round(np.geomspace(first, last, GRID)).astype(np.int64))
    for index in range(len(grid) - 2, -1, -1):
        if within(float(grid[index])):
            inside, outside = int(grid[index]), int(grid[index + 1])
            while outside - inside > 1:
                middle = (inside + outside) // 2
                inside, outside = (middle, outside) if within(middle) else (inside, middle)
            return inside
    return None
