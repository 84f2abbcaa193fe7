"""The power of the learning rate in the exposure: gamma in N * (learning_rate / rate0)^gamma.

gamma is searched together with the six numbers of the joint law, from laws that were fitted at
other gammas. Array axes: k points, 7 numbers ln A, ln alpha, ln B, ln beta, ln rho, shift, gamma,
with A and B taken at the centre of the points.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import stdtrit

from service.laws.exposure import MAX_SPAN, Scale, rates_of
from service.laws.law import LawFit
from service.laws.quantities import Floats, Point

GAMMA = (-1.0, 3.0)
"""Bounds of the search. 0: the rate does not matter; 1: the cumulated rate does."""
MIN_RUNS = 3
MAX_ROUNDS = 4
STILL = 2e-4
"""A gamma that moves less has stayed: its standard error is far larger."""
LOWER = (-np.inf, math.log(1e-4), -np.inf, math.log(1e-4), math.log(0.1), -np.inf)
UPPER = (np.inf, math.log(5.0), np.inf, math.log(5.0), math.log(50.0), np.inf)
"""Bounds of the joint law's six, those of its own search."""


@dataclass(frozen=True)
class RatePower:
    """gamma with its 95 % interval, null below 3 runs, and the law fitted at it."""

    gamma: float
    ci95: tuple[float, float] | None
    at_bound: bool
    law: LawFit
    scale: Scale


@dataclass(frozen=True)
class _Columns:
    """Logarithms about the centre of the points; each (k,)."""

    p: Floats
    n: Floats
    rate: Floats  # ln(learning_rate / rate0), not centred
    value: Floats
    run: Floats
    log_p0: float
    log_n0: float
    lower: Floats  # (7,)
    upper: Floats  # (7,)


@dataclass(frozen=True)
class _End:
    """Where one descent ended."""

    numbers: Floats  # (7,)
    sign: float
    cost: float


def fit_rate_power(
    points: Sequence[Point],
    values: Floats,
    starts: Sequence[tuple[Scale, LawFit]],
    refit: Callable[[Scale], LawFit],
) -> RatePower:
    """gamma of least soft-L1 cost within `bounds_of(points)`.

    `starts`: laws at fixed gammas, at least one. `refit` fits the joint law on a scale from many
    starts of its own: the descent in seven numbers and that search take turns until gamma stays.
    """
    rate0 = starts[0][0].rate0
    columns = _columns(points, values, rate0)
    sizes = [law.robust_scale for _, law in starts if law.robust_scale is not None]
    # One scale for all, or their costs could not be compared: that of the law that fits best.
    size = min(sizes) if sizes else math.inf
    ends = [_descend(columns, law, scale, size) for scale, law in starts]
    end = min(ends, key=lambda one: one.cost)
    for _ in range(MAX_ROUNDS):
        gamma = float(end.numbers[-1])
        scale = Scale.of(points, "rate_power", gamma=gamma)
        law = refit(scale)
        size = law.robust_scale if law.robust_scale is not None else math.inf
        end = _descend(columns, law, scale, size)
        if abs(float(end.numbers[-1]) - gamma) < STILL:
            break
    low, high = bounds_of(points)
    return RatePower(
        gamma=gamma,
        ci95=_interval(columns, end, size),
        at_bound=not low + 1e-3 < gamma < high - 1e-3,
        law=law,
        scale=scale,
    )


def bounds_of(points: Sequence[Point]) -> tuple[float, float]:
    """GAMMA, narrowed where the exposures could no longer be counted."""
    rates, steps = rates_of(points), [point.step for point in points]
    room = math.log(MAX_SPAN * min(steps) / max(steps)) / math.log(rates[-1] / rates[0])
    return max(GAMMA[0], -room), min(GAMMA[1], room)


def _columns(points: Sequence[Point], values: Floats, rate0: float) -> _Columns:
    log_p = np.log([float(point.trainable_params) for point in points])
    log_n = np.log([float(point.step) for point in points])
    rates = np.array([point.learning_rate for point in points], dtype=np.float64)
    place = {run: float(i) for i, run in enumerate(sorted({point.run for point in points}))}
    low, high = bounds_of(points)
    return _Columns(
        lower=np.array([*LOWER, low]),
        upper=np.array([*UPPER, high]),
        p=log_p - log_p.mean(),
        n=log_n - log_n.mean(),
        rate=np.log(rates / rate0),
        value=values,
        run=np.array([place[point.run] for point in points]),
        log_p0=float(log_p.mean()),
        log_n0=float(log_n.mean()),
    )


def _descend(columns: _Columns, law: LawFit, scale: Scale, size: float) -> _End:
    """From one law downhill in all seven numbers; `size` is soft-L1's scale in nats."""
    a, alpha, b, beta, rho, shift, sign = law.values
    start = np.array(
        [
            math.log(a) - alpha * columns.log_p0,
            math.log(alpha),
            math.log(b) - beta * (math.log(scale.unit) + columns.log_n0),
            math.log(beta),
            math.log(rho),
            shift,
            scale.gamma,
        ]
    )
    plain = math.isinf(size)

    def residual(numbers: Floats) -> Floats:
        return _evaluate(columns, numbers, sign)[0] - columns.value

    def jacobian(numbers: Floats) -> Floats:
        return _evaluate(columns, numbers, sign)[1]

    found = least_squares(
        residual,
        np.clip(start, columns.lower + 1e-9, columns.upper - 1e-9),
        jac=jacobian,
        bounds=(columns.lower, columns.upper),
        x_scale="jac",
        loss="linear" if plain else "soft_l1",
        f_scale=1.0 if plain else size,
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-12,
        max_nfev=300,
    )
    return _End(numbers=found.x, sign=sign, cost=float(found.cost))


def _evaluate(columns: _Columns, numbers: Floats, sign: float) -> tuple[Floats, Floats]:
    """The law at the points, (k,), and its derivative by the seven numbers, (k, 7)."""
    log_a, alpha, log_b, beta, rho, shift, gamma = numbers
    alpha, beta, rho = math.exp(alpha), math.exp(beta), math.exp(rho)
    m = columns.n + gamma * columns.rate
    from_p, from_x = log_a - alpha * columns.p, log_b - beta * m
    log_sum = np.logaddexp(from_p, from_x)
    share = np.exp(from_p - log_sum)
    power = sign * np.exp(np.minimum(rho * log_sum, 300.0))
    by_p, by_x = rho * power * share, rho * power * (1.0 - share)
    jacobian = np.stack(
        [
            by_p,
            -by_p * alpha * columns.p,
            by_x,
            -by_x * beta * m,
            rho * power * log_sum,
            np.ones_like(m),
            -by_x * beta * columns.rate,
        ],
        axis=1,
    )
    return power + shift, jacobian


def _interval(columns: _Columns, end: _End, size: float) -> tuple[float, float] | None:
    """95 % interval of gamma: jackknife by run of the linearised law, Student's t over the runs.

    Leaving out run c moves the seven numbers by -(J'WJ without c)^-1 J_c' W_c r_c.
    """
    runs = np.unique(columns.run)
    if len(runs) < MIN_RUNS:
        return None
    fitted, jacobian = _evaluate(columns, end.numbers, end.sign)
    residual = columns.value - fitted
    weight = np.ones_like(residual) if math.isinf(size) else 1 / np.sqrt(1 + (residual / size) ** 2)
    free = (end.numbers > columns.lower + 1e-6) & (end.numbers < columns.upper - 1e-6)
    if not free[-1]:
        return None
    columns_free = jacobian[:, free]
    lengths = np.linalg.norm(columns_free, axis=0)
    scaled = columns_free / np.where(lengths > 0, lengths, 1.0)
    moved = []
    for run in runs:
        out = columns.run == run
        kept = (scaled * weight[:, None])[~out].T @ scaled[~out]
        pull = (scaled[out] * weight[out, None]).T @ residual[out]
        # The other numbers are hardly told apart; gamma does not hang on how they are.
        step = np.linalg.lstsq(kept, -pull, rcond=1e-11)[0]
        moved.append(float(step[-1] / lengths[-1]) if lengths[-1] > 0 else math.inf)
    n_runs = len(runs)
    sd = math.sqrt(n_runs - 1.0) * float(np.std(moved))
    if not math.isfinite(sd):
        return None
    half = float(stdtrit(n_runs - 1, 0.975)) * sd
    gamma = float(end.numbers[-1])
    return gamma - half, gamma + half
