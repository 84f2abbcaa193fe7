"""Fitting the joint law: variable projection from many starts at once.

For a given shape, level and slope are a straight-line fit, so only four numbers are searched.
Array axes as in `curve`: s starts, k points, 4 shape numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.laws import curve, robust
from service.laws.curve import LARGEST_POWER, LOWER, UPPER, Plane
from service.laws.minimum import Minimum, condition_number
from service.laws.quantities import Floats, Sample
from service.laws.robust import Scale

START_LOWER = np.array([-2.5, np.log(5e-3), np.log(5e-3), np.log(0.2)])
START_UPPER = np.array([2.5, np.log(2.0), np.log(2.0), np.log(10.0)])
N_COEFFICIENTS = 6
PRUNED_AFTER = 12
"""Steps from every start, before the best N_CARRIED go on."""
N_CARRIED = 12
N_WARM = 4
"""Best ends of the search that then see every point."""
MAX_STEPS = 100
MAX_CELLS = 200_000
"""Starts times points that are held at once."""
MAX_SEARCHED = 512
"""Points that the search from all starts looks at; the best ends then see every point."""

Indices = npt.NDArray[np.intp]


def minimise(points: Sample, *, robust_loss: bool, n_starts: int, seed: int) -> Minimum:
    """The joint law of these points."""
    plane, value, weight = Plane.of(points), points.value, points.weight[None, :]
    few = _spread_out(len(value))
    searched = Plane(plane.p[few], plane.n[few], plane.log_p0, plane.log_n0)
    # Plain squares first; their residuals give the scale of the robust search.
    ends, scale = starts(n_starts, seed=seed), np.inf
    found = descend(
        ends, searched, value[few], scale=scale, kept=weight[:, few], max_steps=PRUNED_AFTER
    )
    ends = found.cheapest(N_CARRIED).shape
    found = descend(ends, searched, value[few], scale=scale, kept=weight[:, few])
    if robust_loss:
        best = descend(found.cheapest(N_WARM).shape, plane, value, scale=scale, kept=weight).best()
        scale = robust.scale_of(
            best.residuals(plane, value)[0],
            points.weight,
            spread=points.spread,
            n_coefficients=N_COEFFICIENTS,
        )
        ends = np.vstack([best.shape, found.shape])
        found = descend(ends, searched, value[few], scale=scale, kept=weight[:, few])
    best = descend(found.cheapest(N_WARM).shape, plane, value, scale=scale, kept=weight).best()
    jacobian = curve.gradient(best.shape, float(best.slope[0]), plane)
    return Minimum(
        values=curve.wire(best.shape, best.level, best.slope, plane)[0],
        residuals=best.residuals(plane, value)[0],
        jacobian=jacobian,
        chart=curve.chart(best.shape, float(best.slope[0]), plane),
        centre=(plane.log_p0, plane.log_n0),
        condition_number=condition_number(jacobian),
        cost=float(best.cost[0]),
        robust_scale=scale if math.isfinite(scale) else None,
        at_bound=_at_bound(best.shape[0]),
    )


@dataclass(frozen=True)
class Curves:
    """A batch of joint laws."""

    shape: Floats  # (s, 4)
    level: Floats  # (s,)
    slope: Floats  # (s,)
    cost: Floats  # (s,)

    def cheapest(self, count: int) -> "Curves":
        """The `count` laws of least cost, in that order."""
        return self._at(np.argsort(self.cost, kind="stable")[:count])

    def best(self, *, of: int | None = None) -> "Curves":
        """The cheapest law of every `of` consecutive ones; of all, if not given."""
        cost = self.cost.reshape(-1, of or max(1, len(self.cost)))
        return self._at(np.arange(len(cost)) * cost.shape[1] + cost.argmin(axis=1))

    def _at(self, index: Indices) -> "Curves":
        return Curves(self.shape[index], self.level[index], self.slope[index], self.cost[index])

    def residuals(self, plane: Plane, value: Floats) -> Floats:
        """Measured minus fitted: (s, k)."""
        power = curve.growth(self.shape, plane)[0]
        return np.asarray(value - self.level[:, None] - self.slope[:, None] * power)


def starts(count: int, *, seed: int) -> Floats:
    """`count` shapes spread evenly over the start box; more starts contain the fewer.

    Additive recurrence on the generalised golden ratio of four dimensions (Roberts 2018).
    """
    golden = 1.1673039782614187  # the root of x^5 = x + 1
    steps = golden ** -np.arange(1.0, 5.0)
    unit = (0.5 + np.outer(np.arange(1 + seed, 1 + seed + count), steps)) % 1.0
    return np.asarray(START_LOWER + unit * (START_UPPER - START_LOWER))


def descend(
    shape: Floats,
    plane: Plane,
    value: Floats,
    *,
    scale: Scale,
    kept: Floats,
    tolerance: float = 1e-9,
    max_steps: int = MAX_STEPS,
) -> Curves:
    """Minimise the soft-L1 cost from every start: Levenberg-Marquardt on the projected problem.

    value: (k,) or (s, k), forgetting. kept: (1, k) or (s, k), weight of each point.
    tolerance: relative gain below which three steps in a row end the search.
    """
    n_rows = max(1, MAX_CELLS // len(plane.p))
    kept = np.broadcast_to(kept, (len(shape), len(plane.p)))
    values = np.broadcast_to(value, (len(shape), len(plane.p)))
    scales = np.broadcast_to(scale, (len(shape), 1))
    parts = [
        _descend(shape[rows], plane, values[rows], scales[rows], kept[rows], tolerance, max_steps)
        for rows in (slice(i, i + n_rows) for i in range(0, max(1, len(shape)), n_rows))
    ]
    return Curves(
        shape=np.concatenate([part.shape for part in parts]),
        level=np.concatenate([part.level for part in parts]),
        slope=np.concatenate([part.slope for part in parts]),
        cost=np.concatenate([part.cost for part in parts]),
    )


@dataclass
class _State:
    """Everything known about a batch at its current shapes."""

    shape: Floats
    level: Floats
    slope: Floats
    cost: Floats
    grown: tuple[Floats, Floats, Floats]
    residual: Floats  # (s, k)

    @classmethod
    def at(
        cls, shape: Floats, plane: Plane, value: Floats, scale: Scale, kept: Floats, weight: Floats
    ) -> "_State":
        """Level and slope that fit best for each shape; `weight` starts the reweighting."""
        grown = curve.growth(shape, plane)
        rounds = 1 if np.all(np.isinf(scale)) else 4
        line = robust.line(
            grown[0], value, scale=scale, kept=kept, weight=weight, max_rounds=rounds
        )
        cost = (kept * robust.costs(line.residual, scale)).sum(axis=1)
        power = np.exp(shape[:, 3]) * np.abs(grown[1]).max(axis=1)
        cost = np.where(power > LARGEST_POWER, np.inf, cost)
        return cls(shape, line.intercept, line.slope, cost, grown, line.residual)

    def put(self, rows: Indices, other: "_State", chosen: npt.NDArray[np.bool_]) -> None:
        """Overwrite `rows` with the chosen rows of `other`."""
        for name in ("shape", "level", "slope", "cost", "residual"):
            getattr(self, name)[rows] = getattr(other, name)[chosen]
        for mine, theirs in zip(self.grown, other.grown, strict=True):
            mine[rows] = theirs[chosen]


def _descend(
    shape: Floats,
    plane: Plane,
    value: Floats,
    scale: Floats,
    kept: Floats,
    tolerance: float,
    max_steps: int,
) -> Curves:
    state = _State.at(shape.copy(), plane, value, scale, kept, kept)
    damping = np.full(len(shape), 1e-2)
    still = np.zeros(len(shape), dtype=np.int64)
    live = np.arange(len(shape))
    floor = 1e-26 * np.ptp(value, axis=1) ** 2
    for _ in range(max_steps):
        if not len(live):
            break
        step = _step(state, live, plane, scale[live], kept[live], damping[live])
        trial_shape = np.clip(state.shape[live] + step, LOWER, UPPER)
        weight = kept[live] * robust.weights(state.residual[live], scale[live])
        trial = _State.at(trial_shape, plane, value[live], scale[live], kept[live], weight)
        before = state.cost[live]
        better = trial.cost < before
        # A start beyond LARGEST_POWER costs infinity until a step brings it home.
        finite = np.where(np.isfinite(before), before, 2.0 * trial.cost)
        gain = np.zeros(len(live))
        gain[better] = 1.0 - trial.cost[better] / np.maximum(finite[better], floor[live][better])
        state.put(live[better], trial, better)
        damping[live] = np.clip(damping[live] * np.where(better, 0.2, 5.0), 1e-12, 1e12)
        # A refused step says nothing until damping has made it tiny.
        idle = np.where(better, gain < tolerance, damping[live] > 1e9)
        still[live] = np.where(idle, still[live] + 1, np.where(better, 0, still[live]))
        live = live[(still[live] < 3) & (state.cost[live] > floor[live])]
    return Curves(state.shape, state.level, state.slope, state.cost)


def _step(
    state: _State,
    live: Indices,
    plane: Plane,
    scale: Scale,
    kept: Floats,
    damping: Floats,
) -> Floats:
    """One damped Gauss-Newton step of the shape, held at the bounds it would cross: (s, 4)."""
    shape, residual = state.shape[live], state.residual[live]
    grown = (state.grown[0][live], state.grown[1][live], state.grown[2][live])
    weight = kept * robust.weights(residual, scale)
    # Kaufman's form: the part of the derivative that level and slope cannot take up.
    jacobian = state.slope[live][:, None, None] * curve.slopes_of_growth(shape, plane, grown)
    total = weight.sum(axis=1)
    power = grown[0] - ((weight * grown[0]).sum(axis=1) / total)[:, None]
    flat = (weight * power**2).sum(axis=1)
    mean = np.einsum("sjk,sk->sj", jacobian, weight) / total[:, None]
    along = np.einsum("sjk,sk->sj", jacobian, weight * power) / np.where(flat > 0, flat, 1)[:, None]
    jacobian = jacobian - mean[:, :, None] - along[:, :, None] * power[:, None, :]
    weighted = jacobian * weight[:, None, :]
    normal = weighted @ jacobian.transpose(0, 2, 1)
    downhill = np.einsum("sjk,sk->sj", weighted, residual)
    stuck = ((shape <= LOWER) & (downhill < 0)) | ((shape >= UPPER) & (downhill > 0))
    free = (~stuck).astype(np.float64)
    normal = normal * free[:, :, None] * free[:, None, :]
    diagonal = np.einsum("sjj->sj", normal)
    largest = diagonal.max(axis=1, keepdims=True)
    ridge = damping[:, None] * np.maximum(diagonal, 1e-6 * largest) + 1e-300
    ridge = np.where(stuck, 1.0, ridge + 1e-14 * largest)
    normal = normal + ridge[:, :, None] * np.eye(4)
    step = np.linalg.solve(normal, (downhill * free)[:, :, None])[:, :, 0]
    return np.asarray(np.clip(step, -2.0, 2.0))


def _at_bound(shape: Floats) -> tuple[str, ...]:
    """Coefficients whose search ended on a bound."""
    margin = 1e-3
    touched = (shape < LOWER + margin) | (shape > UPPER - margin)
    names = (("A", "B"), ("alpha",), ("beta",), ("rho",))
    return tuple(name for group, hit in zip(names, touched, strict=True) if hit for name in group)


def _spread_out(count: int) -> Indices:
    """Indices of at most MAX_SEARCHED of `count` points in order, evenly apart, ends included."""
    kept = np.linspace(0, count - 1, min(count, MAX_SEARCHED))
    return np.asarray(np.round(kept), dtype=np.intp)
