"""95 % intervals from the runs: of the coefficients, of the curve, of a new run."""

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

MIN_RUNS: dict[Form, int] = {"linear": 3, "joint": 4}
"""Runs without which there is no interval."""
SQUARED_SINES = np.sin((np.arange(48) + 0.5) / 48 * np.pi / 2) ** 2
"""Midpoints of the angles over which `critical` integrates."""
MOST_LOG, N_HALVINGS = 4.0, 24
"""Bisection of ln c from 0, to six digits; one degree of freedom needs c = 12.7."""
FACTOR = 2.0
"""A joint coefficient is identifiable where its interval stays within this factor."""


@dataclass(frozen=True)
class Band:
    """Half-widths of the 95 % intervals of the curve and of a new run; infinite: not known."""

    curve: Floats
    new_run: Floats


def band(clusters: Clusters, noise: Scatter, gradient: Floats) -> Band:
    """gradient: (m, c), derivative of the law by its centred coefficients at m places."""
    error, shares = clusters.error(gradient)
    curve = critical(shares) * error
    # The two estimates come from the same few runs and err together: each takes its own factor.
    scatter = stdtrit(noise.freedom, 0.975) * noise.sd
    return Band(curve, np.hypot(curve, scatter))


def critical(shares: Floats) -> Floats:
    """How many estimated standard errors make 95 %: (m,).

    The estimated variance is a sum of independent chi-squared variables of one degree of freedom,
    times `shares` (m, n); n equal ones give Student's t. By Craig's integral for the normal tail,
    P(|z| > c s) is the mean over theta in (0, pi/2) of the product over the parts of
    (1 + c^2 share / sin^2 theta)^(-1/2).
    """
    parts = shares[:, :, None] / SQUARED_SINES  # (m, n, angles)
    low, high = np.zeros(len(shares)), np.full(len(shares), MOST_LOG)
    for _ in range(N_HALVINGS):
        middle = 0.5 * (low + high)
        terms = 0.5 * np.log1p(np.exp(2.0 * middle)[:, None, None] * parts)
        too_often = np.exp(-terms.sum(axis=1)).mean(axis=1) > 0.05
        low, high = np.where(too_often, middle, low), np.where(too_often, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)))


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
    error, shares = clusters.error(asked)
    half = critical(shares) * error if enough else local
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
