"""What stands in for steps where runs differ in learning rate: the exposure X, counted in units.

X = unit * N * (learning_rate / rate0)^gamma, or unit * ||dW||. The joint law wants whole steps,
so the unit makes the smallest exposure 100,000: rounding moves none by more than 5e-6 of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from service.laws.quantities import (
    MAX_COUNT,
    BadPoints,
    Floats,
    Point,
    Target,
    TooFewPoints,
    after_burn_in,
    in_order,
    sample,
)

LR = "learning_rate"
Exposure = Literal["cumulated_rate", "rate_power", "delta_norm", "steps"]
"""gamma = 1; gamma fitted; ||dW||; gamma = 0, which ignores the learning rate."""

LEAST_UNITS = 1e5
MAX_SPAN = MAX_COUNT / (2 * LEAST_UNITS)
"""The largest exposure over the least."""
MAX_RATE = 1e6


@dataclass(frozen=True)
class Scale:
    """One way to turn a checkpoint into units of exposure."""

    exposure: Exposure
    gamma: float | None
    """Null for `delta_norm`."""
    rate0: float
    """Geometric mean of the distinct learning rates."""
    unit: float

    @classmethod
    def of(cls, points: Sequence[Point], exposure: Exposure, *, gamma: float | None) -> "Scale":
        """The scale on which the least exposed of the points has LEAST_UNITS."""
        rate0 = math.exp(float(np.log(rates_of(points)).mean()))
        least = float(cls(exposure, gamma, rate0, unit=1.0).units(points).min())
        return cls(exposure, gamma, rate0, unit=LEAST_UNITS / least)

    def units(self, points: Sequence[Point]) -> Floats:
        """X of every point: (k,). They carry what this exposure needs."""
        if self.gamma is None:
            return self.unit * np.array([point.delta_norm for point in points], dtype=np.float64)
        step = np.array([float(point.step) for point in points])
        rate = np.array([point.learning_rate for point in points], dtype=np.float64)
        return np.asarray(self.unit * step * (rate / self.rate0) ** self.gamma)

    def units_per_step(self, learning_rate: float) -> float:
        """X = this times N; only where there is a gamma."""
        assert self.gamma is not None
        return float(self.unit * (learning_rate / self.rate0) ** self.gamma)

    def restate(self, points: Sequence[Point]) -> list[Point]:
        """The points with whole units of exposure for their steps, which the joint law takes.

        Raises BadPoints where one is too exposed to be counted.
        """
        taken: set[tuple[str, int, int]] = set()
        restated = []
        for index, (point, units) in enumerate(zip(points, self.units(points), strict=True)):
            if not units <= MAX_SPAN * LEAST_UNITS:
                raise BadPoints(
                    f"point {index}: its exposure is {units / LEAST_UNITS:.3g} times the least; "
                    "no law spans that",
                    index=index,
                    field="delta_norm" if self.gamma is None else "learning_rate",
                )
            count = round(float(units))
            # Two checkpoints of one run may lie equally far from the base.
            while (point.run, point.trainable_params, count) in taken:
                count += 1
            taken.add((point.run, point.trainable_params, count))
            restated.append(replace(point, step=count))
        return restated

    def to_json(self) -> dict[str, Any]:
        return {
            "exposure": self.exposure,
            "gamma": self.gamma,
            "rate0": self.rate0,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Scale":
        gamma = body["gamma"]
        return cls(
            exposure=body["exposure"],
            gamma=None if gamma is None else float(gamma),
            rate0=float(body["rate0"]),
            unit=float(body["unit"]),
        )


def rates_of(points: Sequence[Point]) -> tuple[float, ...]:
    """The distinct learning rates, ascending."""
    return tuple(sorted({p.learning_rate for p in points if p.learning_rate is not None}))


def checked(points: Sequence[Point], metric: Target, *, burn_in: int | None) -> list[Point]:
    """The points that count, each with its learning rate, in the order of their `sample`.

    `burn_in`: points with `step < burn_in` are left out; null leaves out those below a fifth of
    their run's last step. Raises BadPoints, and TooFewPoints for fewer than two rates or three
    steps.
    """
    sample(points, metric, burn_in=burn_in)
    rate_of_run: dict[str, float] = {}
    for index, point in enumerate(points):
        rate, norm = point.learning_rate, point.delta_norm
        if rate is None or not 0 < rate <= MAX_RATE:
            why = "is missing" if rate is None else f"is {rate:g}, must lie in (0, {MAX_RATE:g}]"
            raise BadPoints(f"point {index}: learning_rate {why}", index=index, field=LR)
        if norm is not None and not 0 <= norm < math.inf:
            message = f"point {index}: delta_norm is {norm:g}, must be a number from 0"
            raise BadPoints(message, index=index, field="delta_norm")
        first = rate_of_run.setdefault(point.run, rate)
        if first != rate:
            message = f"run {point.run!r} has learning rates {first:g} and {rate:g}; a run has one"
            raise BadPoints(message, index=index, field=LR)
    kept = in_order(after_burn_in(points, burn_in))
    for axis, need, have in (
        (LR, 2, len(rates_of(kept))),
        ("step", 3, len({point.step for point in kept})),
    ):
        if have < need:
            raise TooFewPoints(
                f"the joint_lr law needs {need} values of {axis}; {len(kept)} points have {have}",
                axis=axis,
            )
    return kept
