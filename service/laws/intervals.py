"""95 % intervals from the runs, by Student's t: of the coefficients, of the curve, of a new run."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from service.laws.clusters import Clusters
from service.laws.curve import LARGEST_LOG, LOWER, UPPER
from service.laws.law import COEFFICIENTS, Coefficient
from service.laws.minimum import Minimum
from service.laws.quantities import Floats, Form, Sample
from service.laws.scatter import Scatter

Interval = tuple[float, float]

MIN_RUNS: dict[Form, int] = {"linear": 3, "joint": 5}
"""Runs without which there is no interval."""
FACTOR = 2.0
"""A joint coefficient is identifiable where its interval stays within this factor."""


@dataclass(frozen=True)
class Band:
    """Half-widths of the 95 % intervals of the curve and of a new run; infinite: not known."""

    curve: Floats
    new_run: Floats


def t_95(freedom: Floats | float) -> Floats:
    """Two-sided 95 % quantile of Student's t."""
    return np.asarray(stdtrit(freedom, 0.975))


def band(clusters: Clusters, noise: Scatter, gradient: Floats) -> Band:
    """gradient: (m, c), derivative of the law by its centred coefficients at m places."""
    error, freedom = clusters.error(gradient)
    of_curve, of_run = error**2, noise.sd**2
    with np.errstate(invalid="ignore", divide="ignore"):
        # Satterthwaite again, for the sum of two variances.
        parts = of_curve**2 / freedom + of_run**2 / noise.freedom
        together = np.where(parts > 0, (of_curve + of_run) ** 2 / parts, noise.freedom)
    together = np.where(np.isfinite(together), together, 1.0)
    return Band(t_95(freedom) * error, t_95(together) * np.sqrt(of_curve + of_run))


def coefficients(
    form: Form, found: Minimum, clusters: Clusters, points: Sample, *, noise_sd: float
) -> dict[str, Coefficient]:
    """Each coefficient with its interval, and whether the points tell it.

    Joint: identifiable where twice the larger of the runs' and of independent points' standard
    error stays within a FACTOR of two (the shift: within the forgetting's spread) and the search
    did not end on a bound; the sign, where the law's rise over the points is surely not zero.
    Linear: both, where the slope's interval excludes zero.
    """
    enough = len(points.runs) >= MIN_RUNS[form]
    fitted = points.value - found.residuals
    rise = found.jacobian[fitted.argmax()] - found.jacobian[fitted.argmin()]
    asked = np.vstack([found.chart, rise])
    local = 2.0 * noise_sd * clusters.scale(asked)
    error, freedom = clusters.error(asked)
    half = t_95(freedom) * error if enough else local
    widest = np.maximum(half, local)
    centre = _charted(form, found.values)
    result = {}
    for index, name in enumerate(COEFFICIENTS[form]):
        value = float(found.values[index])
        if name == "sign":
            told = bool(widest[index] < np.ptp(fitted))
            result[name] = Coefficient(value=value, ci95=None, identifiable=told)
            continue
        ends = (centre[index] - half[index], centre[index] + half[index])
        if form == "linear":
            told = bool(widest[0] < abs(centre[0]))
        else:
            limit = points.spread if name == "shift" else math.log(FACTOR)
            told = bool(widest[index] <= limit) and name not in found.at_bound
        known = enough and bool(np.isfinite(half[index]))
        result[name] = Coefficient(
            value=value,
            ci95=_uncharted(form, name, ends) if known else None,
            identifiable=told,
        )
    return result


def _charted(form: Form, values: Floats) -> Floats:
    """Coordinates in which intervals are symmetric: logarithms, but for shift and the line."""
    if form == "linear":
        return values
    return np.append(np.log(values[:5]), values[5])


def _uncharted(form: Form, name: str, ends: Interval) -> Interval:
    low, high = float(ends[0]), float(ends[1])
    if form == "linear" or name == "shift":
        return low, high
    bounds = {"alpha": 1, "beta": 2, "rho": 3}
    least, most = -LARGEST_LOG, LARGEST_LOG
    if name in bounds:
        least, most = float(LOWER[bounds[name]]), float(UPPER[bounds[name]])
    return math.exp(min(max(low, least), most)), math.exp(max(min(high, most), least))
