"""Uncertainty clustered by run: points of one run drift together, so whole runs are left out.

Jackknife: refit with each run (or group of runs) left out; the spread of the refits, times
(g - 1) / sqrt(g) over their own, is the standard error, and Student's t with g - 1 degrees of
freedom makes 95 % of it. Below MIN_RUNS runs there is no interval.
"""

import math

import numpy as np
from scipy.special import stdtrit

from service.laws.curve import LARGEST_LOG, LOWER, UPPER
from service.laws.law import COEFFICIENTS, Coefficient
from service.laws.minimum import Minimum
from service.laws.quantities import Floats, Form, Sample

MIN_RUNS = 3
MAX_GROUPS = 32
"""More runs than this are left out in groups."""
FACTOR = 2.0
"""A joint coefficient is identifiable where its interval stays within this factor."""


def left_out(points: Sample) -> Floats:
    """Weights (g, k) of the refits: row i is zero where point k belongs to group i."""
    n_runs = len(points.runs)
    if n_runs < MIN_RUNS:
        return np.ones((0, points.n_points))
    n_groups = min(n_runs, MAX_GROUPS)
    return np.asarray(points.run % n_groups != np.arange(n_groups)[:, None], dtype=np.float64)


def jackknife_sd(replicates: Floats) -> Floats:
    """Standard error of whatever the columns of `replicates` (g, m) estimate: (m,)."""
    return np.asarray(np.sqrt(len(replicates) - 1.0) * replicates.std(axis=0))


def t_95(n_groups: int) -> float:
    """Two-sided 95 % quantile of Student's t with n_groups - 1 degrees of freedom."""
    return float(stdtrit(n_groups - 1, 0.975))


def noise_sd(residuals: Floats, n_coefficients: int) -> float:
    """Standard deviation of one point about the curve, degrees of freedom counted."""
    freedom = max(1, len(residuals) - n_coefficients)
    return math.sqrt(float(residuals @ residuals) / freedom)


def coefficients(form: Form, found: Minimum, *, spread: float) -> dict[str, Coefficient]:
    """Each coefficient with its interval, and whether the points tell it.

    Joint: identifiable where twice the larger of the jackknife's and the Jacobian's standard
    error stays within a FACTOR of two (the shift: within the forgetting's spread) and the search
    did not end on a bound. Linear: both, where the slope's interval excludes zero.
    """
    names = COEFFICIENTS[form]
    local = _local_sd(found.jacobian, noise_sd(found.residuals, found.jacobian.shape[1]))
    half = 2.0 * local
    has_interval = len(found.replicates) > 0
    if has_interval:
        charted = np.array([_chart(form, row) for row in found.replicates])
        half = t_95(len(charted)) * jackknife_sd(charted)
    widest = np.maximum(half, 2.0 * local)
    centre = _chart(form, found.values)
    result = {}
    for index, name in enumerate(names):
        value = float(found.values[index])
        if name == "sign":
            agreed = bool(np.all(found.replicates[:, index] == value))
            result[name] = Coefficient(value=value, ci95=None, identifiable=agreed)
            continue
        ends = (centre[index] - half[index], centre[index] + half[index])
        if form == "linear":
            told = bool(widest[0] < abs(centre[0]))
        else:
            limit = spread if name == "shift" else math.log(FACTOR)
            told = bool(widest[index] <= limit) and name not in found.at_bound
        result[name] = Coefficient(
            value=value,
            ci95=_unchart(form, name, ends) if has_interval else None,
            identifiable=told,
        )
    return result


def _chart(form: Form, values: Floats) -> Floats:
    """Coordinates in which intervals are symmetric: logarithms, but for shift and the line."""
    if form == "linear":
        return values
    return np.append(np.log(values[:5]), values[5])


def _unchart(form: Form, name: str, ends: tuple[float, float]) -> tuple[float, float]:
    low, high = float(ends[0]), float(ends[1])
    if form == "linear" or name == "shift":
        return low, high
    bounds = {"alpha": 1, "beta": 2, "rho": 3}
    least, most = -LARGEST_LOG, LARGEST_LOG
    if name in bounds:
        least, most = float(LOWER[bounds[name]]), float(UPPER[bounds[name]])
    return math.exp(min(max(low, least), most)), math.exp(max(min(high, most), least))


def _local_sd(jacobian: Floats, noise: float) -> Floats:
    """Standard errors of independent points from the Jacobian; infinite where it is singular."""
    lengths = np.linalg.norm(jacobian, axis=0)
    if noise == 0.0:
        return np.zeros(jacobian.shape[1])
    if not np.all(lengths > 0) or len(jacobian) < jacobian.shape[1]:
        return np.full(jacobian.shape[1], np.inf)
    _, singular, directions = np.linalg.svd(jacobian / lengths, full_matrices=False)
    inverse = directions / np.maximum(singular, 1e-16 * singular[0])[:, None]
    return np.asarray(noise * np.linalg.norm(inverse, axis=0) / lengths)
