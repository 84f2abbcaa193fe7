"""The power of the learning rate in the exposure: gamma in N * (learning_rate / rate0)^gamma.

gamma is searched together with the six numbers of the joint law, from laws that were fitted at
other gammas, and its error is that of the seven together. Array axes: k points, 7 numbers ln A,
ln alpha, ln B, ln beta, ln rho, shift, gamma, with A and B taken at the centre of the points.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from service.laws import curve, intervals, robust
from service.laws.clusters import Clusters
from service.laws.exposure import MAX_SPAN, Scale, rates_of
from service.laws.law import LawFit
from service.laws.quantities import Floats, Point, Sample, Target, sample

GAMMA = (-1.0, 3.0)
"""Bounds of the search. 0: the rate does not matter; 1: the cumulated rate does."""
MAX_ROUNDS = 4
STILL = 2e-4
"""A gamma that moves less has stayed: its standard error is far larger."""
LOWER, UPPER = (
    (end, bounds[1], end, bounds[2], bounds[3], end)
    for end, bounds in ((-np.inf, curve.LOWER), (np.inf, curve.UPPER))
)
"""Bounds of the joint law's six: its own search's for alpha, beta and rho."""


@dataclass(frozen=True)
class Centre:
    """Logarithms of the geometric means of the points."""

    log_p0: float
    log_n0: float


@dataclass(frozen=True)
class GammaError:
    """The error of a law whose gamma was fitted: of gamma, and of what it predicts anywhere."""

    clusters: Clusters
    """Of the seven numbers."""
    centre: Centre

    def ci95(self, gamma: float, law: LawFit) -> tuple[float, float] | None:
        """Of gamma itself; null where one run alone decides it."""
        half = float(intervals.band(self.clusters, law.noise, np.eye(7)[6:]).curve[0])
        return (gamma - half, gamma + half) if math.isfinite(half) else None

    def band(
        self, law: LawFit, scale: Scale, *, trainable_params: float, step: float, rate: float
    ) -> tuple[float, float] | None:
        """Half-widths of the 95 % intervals of the curve and of a new run; null: not known."""
        place = _Place(
            p=np.array([math.log(trainable_params) - self.centre.log_p0]),
            n=np.array([math.log(step) - self.centre.log_n0]),
            rate=np.array([math.log(rate / scale.rate0)]),
        )
        numbers, sign = _numbers(law, scale, self.centre)
        both = intervals.band(self.clusters, law.noise, _evaluate(place, numbers, sign)[1])
        halves = float(both.curve[0]), float(both.new_run[0])
        return halves if math.isfinite(sum(halves)) else None

    def to_json(self) -> dict[str, Any]:
        return {
            "clusters": self.clusters.to_json(),
            "log_p0": self.centre.log_p0,
            "log_n0": self.centre.log_n0,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "GammaError":
        return cls(
            clusters=Clusters.from_json(body["clusters"]),
            centre=Centre(float(body["log_p0"]), float(body["log_n0"])),
        )


@dataclass(frozen=True)
class RatePower:
    """gamma, the law fitted at it, and their error: null below the runs that intervals need."""

    scale: Scale
    law: LawFit
    error: GammaError | None
    at_bound: bool


@dataclass(frozen=True)
class _Place:
    """Logarithms about the centre of the points; each (k,)."""

    p: Floats
    n: Floats
    rate: Floats  # ln(learning_rate / rate0), not centred


def fit_rate_power(
    points: Sequence[Point],
    metric: Target,
    starts: Sequence[tuple[Scale, LawFit]],
    refit: Callable[[Scale], LawFit],
) -> RatePower:
    """gamma of least soft-L1 cost within `bounds_of(points)`.

    `points` are in the order of their `sample`. `starts`: laws at fixed gammas, at least one.
    `refit` fits the joint law on a scale from many starts of its own: the descent in seven numbers
    and that search take turns until gamma stays.
    """
    columns = sample(points, metric)
    log_p, log_n = np.log(columns.params), np.log(columns.step)
    centre = Centre(float(log_p.mean()), float(log_n.mean()))
    rates = np.array([point.learning_rate for point in points], dtype=np.float64)
    place = _Place(
        p=log_p - centre.log_p0,
        n=log_n - centre.log_n0,
        rate=np.log(rates / starts[0][0].rate0),
    )
    bounds = bounds_of(points)
    sizes = [law.robust_scale for _, law in starts if law.robust_scale is not None]
    # One scale for all, or their costs could not be compared: that of the law that fits best.
    size = min(sizes) if sizes else math.inf
    ends = [
        _descend(place, columns, *_numbers(law, scale, centre), size=size, bounds=bounds)
        for scale, law in starts
    ]
    gamma = min(ends)[1]
    for _ in range(MAX_ROUNDS):
        scale = Scale.of(points, "rate_power", gamma=gamma)
        law = refit(scale)
        size = law.robust_scale if law.robust_scale is not None else math.inf
        numbers, sign = _numbers(law, scale, centre)
        moved = _descend(place, columns, numbers, sign, size=size, bounds=bounds)[1]
        if abs(moved - gamma) < STILL:
            break
        gamma = moved
    at_bound = not bounds[0] + 1e-3 < numbers[-1] < bounds[1] - 1e-3
    error = None
    if law.clusters is not None and not at_bound:
        fitted, jacobian = _evaluate(place, numbers, sign)
        pseudo = robust.pseudo_residuals(columns.value - fitted, columns.weight, size)
        error = GammaError(Clusters.of(columns, jacobian, pseudo), centre)
    return RatePower(scale=scale, law=law, error=error, at_bound=at_bound)


def bounds_of(points: Sequence[Point]) -> tuple[float, float]:
    """GAMMA, narrowed where the exposures could no longer be counted."""
    rates, steps = rates_of(points), [point.step for point in points]
    room = math.log(MAX_SPAN * min(steps) / max(steps)) / math.log(rates[-1] / rates[0])
    return max(GAMMA[0], -room), min(GAMMA[1], room)


def _numbers(law: LawFit, scale: Scale, centre: Centre) -> tuple[Floats, float]:
    """The seven numbers of a law on a scale with a gamma, and its sign."""
    assert scale.gamma is not None
    a, alpha, b, beta, rho, shift, sign = law.values
    numbers = [
        math.log(a) - alpha * centre.log_p0,
        math.log(alpha),
        math.log(b) - beta * (math.log(scale.unit) + centre.log_n0),
        math.log(beta),
        math.log(rho),
        shift,
        scale.gamma,
    ]
    return np.array(numbers), sign


def _descend(
    place: _Place,
    points: Sample,
    numbers: Floats,
    sign: float,
    *,
    size: float,
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """Downhill in all seven numbers: the cost where it ends, and gamma there.

    `size` is the residual, in nats, at which soft-L1 turns from quadratic to linear.
    """
    lower, upper = np.array([*LOWER, bounds[0]]), np.array([*UPPER, bounds[1]])

    def residual(at: Floats) -> Floats:
        return _evaluate(place, at, sign)[0] - points.value

    def jacobian(at: Floats) -> Floats:
        return _evaluate(place, at, sign)[1]

    def loss(squares: Floats) -> Floats:
        root = np.sqrt(1.0 + squares)
        each = (squares, np.ones_like(squares), np.zeros_like(squares))
        if not math.isinf(size):
            each = (2.0 * (root - 1.0), 1.0 / root, -0.5 / root**3)
        return np.asarray(points.weight * np.array(each))

    found = least_squares(
        residual,
        np.clip(numbers, lower + 1e-9, upper - 1e-9),
        jac=jacobian,
        bounds=(lower, upper),
        x_scale="jac",
        loss=loss,  # type: ignore[arg-type]  # as documented; the stub asks for more
        f_scale=1.0 if math.isinf(size) else size,
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-12,
        max_nfev=300,
    )
    return float(found.cost), float(found.x[-1])


def _evaluate(place: _Place, numbers: Floats, sign: float) -> tuple[Floats, Floats]:
    """The law at the places, (k,), and its derivative by the seven numbers, (k, 7)."""
    log_a, log_alpha, log_b, log_beta, log_rho, shift, gamma = (float(x) for x in numbers)
    alpha, beta, rho = math.exp(log_alpha), math.exp(log_beta), math.exp(log_rho)
    m = place.n + gamma * place.rate
    from_p, from_x = log_a - alpha * place.p, log_b - beta * m
    log_sum = np.logaddexp(from_p, from_x)
    share = np.exp(from_p - log_sum)
    # Floats end at e^709, and the loss takes the sixth power of what a wild step comes to.
    power = sign * np.exp(np.minimum(rho * log_sum, 100.0))
    by_p, by_x = rho * power * share, rho * power * (1.0 - share)
    jacobian = np.stack(
        [
            by_p,
            -by_p * alpha * place.p,
            by_x,
            -by_x * beta * m,
            rho * power * log_sum,
            np.ones_like(m),
            -by_x * beta * place.rate,
        ],
        axis=1,
    )
    return power + shift, jacobian
