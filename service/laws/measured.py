"""Points as columns for judging: the points, order and weights of a fit, and parts of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.laws.quantities import (
    Floats,
    Point,
    Target,
    after_burn_in,
    in_order,
    point_weights,
    sample,
)

MAX_POINTS, MAX_RUNS = 1000, 256
"""Beyond these a judgement, which fits everything many times over, is made on a part."""

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.intp]
T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where forgetting is asked for; k places. `ft_loss` is known only of a run that was made."""

    run: npt.NDArray[np.str_]
    params: Floats
    step: Floats
    ft_loss: Floats

    @cached_property
    def log_params(self) -> Floats:
        return np.asarray(np.log(self.params))

    @cached_property
    def log_step(self) -> Floats:
        return np.asarray(np.log(self.step))


@dataclass(frozen=True)
class Measured(Places):
    """Places and the forgetting that was measured there, sorted by params, step and run."""

    value: Floats
    points: tuple[Point, ...]
    metric: Target

    @cached_property
    def runs(self) -> list[str]:
        return sorted(set(self.run.tolist()))

    @cached_property
    def run_index(self) -> Integers:
        """Index of each point's run in `runs`."""
        return np.asarray(np.unique(self.run, return_inverse=True)[1], dtype=np.intp)

    @cached_property
    def weight(self) -> Floats:
        """Those of a fit, so that forms, rivals and R2 are all of the same points."""
        return point_weights(self.run_index)

    def part(self, mask: Mask) -> "Measured":
        return columns([p for p, kept in zip(self.points, mask, strict=True) if kept], self.metric)


def measured(points: Sequence[Point], metric: Target, burn_in: int | None) -> Measured:
    """The checked points after the burn-in.

    burn_in: points with `step < burn_in` are left out, 0 keeps all; null: those below a fifth of
    their run's last step.

    Raises BadPoints for a value that cannot be true, TooFewPoints if none is left.
    """
    sample(points, metric, burn_in=burn_in)
    return columns(after_burn_in(points, burn_in), metric)


def thinned(known: Measured) -> Measured:
    """At most MAX_RUNS runs, evenly over the ranks, and MAX_POINTS points, evenly along each run
    with its first and last; the same for the same points."""
    rows: dict[str, list[int]] = {}
    for row, run in enumerate(known.run.tolist()):  # runs by rank, points of a run by step
        rows.setdefault(run, []).append(row)
    runs = evenly(list(rows.values()), MAX_RUNS)
    each = max(map(len, runs))
    while sum(min(len(run), each) for run in runs) > MAX_POINTS:
        each -= 1
    kept = np.zeros(len(known.run), dtype=np.bool_)
    for run in runs:
        kept[evenly(run, each)] = True
    return known if kept.all() else known.part(kept)


def evenly(values: Sequence[T], most: int) -> list[T]:
    """At most so many of them, with both ends."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most)]


def columns(points: Sequence[Point], metric: Target) -> Measured:
    ordered = in_order(points)
    return Measured(
        run=np.array([p.run for p in ordered], dtype=np.str_),
        params=np.array([p.trainable_params for p in ordered], dtype=np.float64),
        step=np.array([p.step for p in ordered], dtype=np.float64),
        ft_loss=np.array([p.ft_loss for p in ordered], dtype=np.float64),
        value=np.array([p.value(metric) for p in ordered], dtype=np.float64),
        points=tuple(ordered),
        metric=metric,
    )
