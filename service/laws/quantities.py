"""What a law is fitted to: points, their arrays and their domain. Losses are nats per token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["ce_soft", "kl", "ce_hard"]
Target = Literal["ce_soft", "kl", "ce_hard", "ft_loss"]
"""What a law may be fitted to: forgetting, or the fine-tuning loss itself (the tuning law)."""
Form = Literal["linear", "joint"]
Floats = npt.NDArray[np.float64]

METRICS: tuple[Metric, ...] = ("ce_soft", "kl", "ce_hard")
TARGETS: tuple[Target, ...] = (*METRICS, "ft_loss")
FORMS: tuple[Form, ...] = ("linear", "joint")

MAX_NATS = 1e4
"""A loss above this is a mistake: the uniform guess over any vocabulary is below 20 nats."""
MAX_COUNT = 1e15
"""Largest number of parameters or steps, so that powers of it stay finite."""
BURN_IN_SHARE = 0.2
"""Of a run's last step: earlier points are left out unless the caller says otherwise."""
ALIKE = 0.2
"""Correlation of two points of one run that their weights assume."""
ROUNDING_NATS = 1e-3
"""A KL this far below zero is rounding; a loss below zero is a mistake."""


class LawError(ValueError):
    """A law cannot be fitted or asked. `message` is for people and holds the numbers."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TooFewPoints(LawError):
    """More points, or more spread along `axis`, are needed."""

    def __init__(self, message: str, *, axis: str) -> None:
        super().__init__(message)
        self.axis = axis
        """`points`, `trainable_params`, `step`, `ft_loss` or the metric."""


class BadPoints(LawError):
    """The point at `index` of the caller's list cannot be true; `field` names the value."""

    def __init__(self, message: str, *, index: int, field: str) -> None:
        super().__init__(message)
        self.index = index
        self.field = field


class BadQuery(LawError):
    """A prediction was asked for with arguments which the law cannot use; `field` names one."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Point:
    """One checkpoint of one run. Any one of the three metrics suffices."""

    run: str
    trainable_params: int
    step: int
    ft_loss: float
    """Held-out fine-tuning loss."""
    ce_soft: float | None = None
    kl: float | None = None
    ce_hard: float | None = None
    rank: int | None = None
    learning_rate: float | None = None
    """Peak learning rate of the run; only laws across learning rates ask for it."""
    delta_norm: float | None = None
    """Frobenius norm of the whole update of the weights, over all adapted matrices."""

    def value(self, target: Target) -> float | None:
        """Forgetting by a metric, or the held-out loss; null where it was not measured."""
        return {
            "ce_soft": self.ce_soft,
            "kl": self.kl,
            "ce_hard": self.ce_hard,
            "ft_loss": self.ft_loss,
        }[target]


@dataclass(frozen=True)
class Domain:
    """The box that the points span, ends included; outside it a prediction extrapolates."""

    trainable_params: tuple[int, int]
    step: tuple[int, int]
    ft_loss: tuple[float, float]
    ranks: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "trainable_params": list(self.trainable_params),
            "step": list(self.step),
            "ft_loss": list(self.ft_loss),
            "ranks": list(self.ranks),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Domain":
        least_params, most_params = body["trainable_params"]
        first, last = body["step"]
        low, high = body["ft_loss"]
        return cls(
            trainable_params=(int(least_params), int(most_params)),
            step=(int(first), int(last)),
            ft_loss=(float(low), float(high)),
            ranks=tuple(int(rank) for rank in body["ranks"]),
        )


@dataclass(frozen=True)
class Sample:
    """Points as columns, in an order of their own, so that the caller's order cannot matter."""

    runs: tuple[str, ...]
    """Names of the runs, sorted."""
    run: npt.NDArray[np.intp]
    """Index into `runs`, per point."""
    params: Floats
    step: Floats
    ft_loss: Floats
    value: Floats
    """The chosen target."""
    weight: Floats
    """How much a point counts; the mean is 1."""
    n_left_out: int
    """Points of the burn-in."""
    domain: Domain
    params_per_rank: float | None

    @property
    def n_points(self) -> int:
        return len(self.value)

    @property
    def spread(self) -> float:
        """Largest minus smallest forgetting."""
        return float(np.ptp(self.value))

    @property
    def n_repeated(self) -> int:
        """Points that are another run's at the same place in every digit: the same run again."""
        rows = np.stack([self.params, self.step, self.ft_loss, self.value])
        return self.n_points - len(np.unique(rows.T, axis=0))


def sample(points: Sequence[Point], metric: Target, *, burn_in: int | None = 0) -> Sample:
    """Check the points and lay them out without the burn-in.

    burn_in: points with `step < burn_in` are left out; null leaves out those below a fifth of
    their own run's last step.

    Raises BadPoints for a value that cannot be true, TooFewPoints when none is left.
    """
    if metric not in TARGETS:
        raise LawError(f"metric {metric!r} is none of {', '.join(TARGETS)}")
    if burn_in is not None and burn_in < 0:
        raise LawError(f"burn_in is {burn_in}, must be at least 0 steps")
    seen: dict[tuple[str, int, int], int] = {}
    for index, point in enumerate(points):
        _check(point, metric, index=index)
        key = (point.run, point.trainable_params, point.step)
        first = seen.setdefault(key, index)
        if first != index:
            raise BadPoints(
                f"points {first} and {index} are both run {point.run!r} at step {point.step} "
                f"with {point.trainable_params} parameters",
                index=index,
                field="step",
            )
    kept = after_burn_in(points, burn_in)
    if not kept:
        raise TooFewPoints(
            f"no point left of {len(points)} after a burn-in of {burn_in or 0} steps",
            axis="points",
        )
    kept = in_order(kept)
    runs = tuple(sorted({point.run for point in kept}))
    place = {run: index for index, run in enumerate(runs)}
    run = np.array([place[point.run] for point in kept], dtype=np.intp)
    return Sample(
        runs=runs,
        run=run,
        params=np.array([float(point.trainable_params) for point in kept]),
        step=np.array([float(point.step) for point in kept]),
        ft_loss=np.array([point.ft_loss for point in kept], dtype=np.float64),
        value=np.array([point.value(metric) for point in kept], dtype=np.float64),
        weight=point_weights(run),
        n_left_out=len(points) - len(kept),
        domain=domain_of(kept),
        params_per_rank=_params_per_rank(kept),
    )


def after_burn_in(points: Sequence[Point], burn_in: int | None) -> list[Point]:
    """The points with `step >= burn_in`; null: with a fifth of their run's last step, or more."""
    if burn_in is not None:
        return [point for point in points if point.step >= burn_in]
    last: dict[str, int] = {}
    for point in points:
        last[point.run] = max(last.get(point.run, 0), point.step)
    return [point for point in points if point.step >= BURN_IN_SHARE * last[point.run]]


def in_order(points: Sequence[Point]) -> list[Point]:
    """By trainable_params, step and run: columns never depend on the caller's order."""
    return sorted(points, key=lambda point: (point.trainable_params, point.step, point.run))


def point_weights(run: npt.NDArray[np.intp]) -> Floats:
    """Weight per point, 1 where all runs have as many points: (k,).

    `run` is the index of each point's run. n points that are alike weigh n / (1 + (n - 1) ALIKE)
    together, the variance of their mean turned over: a run saved at every step has at most
    1 / ALIKE times the say of a single point.
    """
    n_points = np.bincount(run)[run]
    weight = 1.0 / (1.0 + (n_points - 1.0) * ALIKE)
    return np.asarray(weight / weight.mean())


def _check(point: Point, metric: Target, *, index: int) -> None:
    """Raise BadPoints for the first field of `point` that cannot be true."""

    def refuse(field: str, why: str) -> BadPoints:
        return BadPoints(f"point {index}: {field} {why}", index=index, field=field)

    for field, count in (("trainable_params", point.trainable_params), ("step", point.step)):
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
            raise refuse(field, f"must be a whole number from 1 to {MAX_COUNT:.0e}")
    if point.rank is not None and point.rank < 1:
        raise refuse("rank", f"is {point.rank}, must be at least 1")
    value = point.value(metric)
    if value is None:
        raise refuse(metric, "is missing: ask for the law of another metric, or measure it")
    for field, loss in (("ft_loss", point.ft_loss), (metric, value)):
        floor = -ROUNDING_NATS if field == "kl" else 0.0
        if not math.isfinite(loss):
            raise refuse(field, "is not a finite number")
        if not floor <= loss <= MAX_NATS:
            raise refuse(field, f"is {loss:g}, must lie between {floor:g} and {MAX_NATS:g} nats")


def domain_of(points: Sequence[Point]) -> Domain:
    """The box of the points."""
    params = [point.trainable_params for point in points]
    steps = [point.step for point in points]
    losses = [point.ft_loss for point in points]
    return Domain(
        trainable_params=(min(params), max(params)),
        step=(min(steps), max(steps)),
        ft_loss=(float(min(losses)), float(max(losses))),
        ranks=tuple(sorted({point.rank for point in points if point.rank is not None})),
    )


def _params_per_rank(points: Sequence[Point]) -> float | None:
    """`trainable_params / rank` where every point that knows its rank agrees on it."""
    ratios = [point.trainable_params / point.rank for point in points if point.rank is not None]
    if not ratios or max(ratios) - min(ratios) > 1e-9 * max(ratios):
        return None
    return ratios[0]
