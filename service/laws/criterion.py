"""AICc of forms, rivals and witnesses on the same points.

-2 ln(likelihood) of Gaussian errors is n ln(SS/n), and AICc = n ln(SS/n) + 2k + 2k(k+1)/(n-k-1)
with k coefficients, the variance counted (Hurvich & Tsai 1989). It takes n independent errors,
which the points of one run are not. So a second figure counts n_effective = n / (1 + (m - 1) r) of
them (Kish's design effect: m points per run, r the correlation of two residuals of one run): n
where a run's points are independent, the number of runs where they move as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.laws.measured import Measured
from service.laws.quantities import Floats, TooFewPoints

FLOOR = 1e-10
"""Least residual sd, as a share of the forgetting's spread, that floats can tell from none."""


@dataclass(frozen=True)
class Criterion:
    """AICc of one contender; only differences between contenders mean anything."""

    n_coefficients: int
    """The variance of the errors included."""
    points: float | None
    """Every point counted; null where fewer than k + 3 are."""
    effective: float | None
    """`n_effective` points counted."""


@dataclass(frozen=True)
class Criteria:
    """`by_contender`: less the smallest of each column, so 0 is the best. From 10 on a contender
    has next to no support (Burnham & Anderson)."""

    n_points: int
    n_effective: float
    run_correlation: float
    """Of the residuals of two points of one run, taken from the closest contender."""
    by_contender: dict[str, Criterion]


def criteria(known: Measured, fitted: Mapping[str, tuple[int, Floats]]) -> Criteria:
    """fitted: number of coefficients and in-sample least-squares residuals (k,) by contender.

    Raises TooFewPoints where forgetting does not vary.
    """
    weight, spread = known.weight, float(np.ptp(known.value))
    if spread <= 1e-9 * float(np.abs(known.value).max()):
        raise TooFewPoints(f"all {len(known.value)} values are alike", axis=known.metric)
    least = (FLOOR * spread) ** 2
    variance = {
        name: max(float(np.average(residuals**2, weights=weight)), least)
        for name, (_, residuals) in fitted.items()
    }
    closest = min(variance, key=lambda name: variance[name])
    shared = run_correlation(known, fitted[closest][1])
    count = len(known.value)
    effective = count / (1.0 + (count / len(known.runs) - 1.0) * shared)
    raw = {
        name: (
            _aicc(count, variance[name], coefficients + 1),
            _aicc(effective, variance[name], coefficients + 1),
        )
        for name, (coefficients, _) in fitted.items()
    }
    best = [
        min((v for v in column if v is not None), default=0.0)
        for column in zip(*raw.values(), strict=True)
    ]
    return Criteria(
        n_points=count,
        n_effective=effective,
        run_correlation=shared,
        by_contender={
            name: Criterion(
                n_coefficients=fitted[name][0] + 1,
                points=None if points is None else points - best[0],
                effective=None if fewer is None else fewer - best[1],
            )
            for name, (points, fewer) in raw.items()
        },
    )


def run_correlation(known: Measured, residuals: Floats) -> float:
    """Intraclass correlation by runs from the analysis of variance, between 0 and 1."""
    index, count, n_runs = known.run_index, len(residuals), len(known.runs)
    if n_runs < 2 or count <= n_runs:
        return 0.0
    sizes = np.bincount(index)
    means = np.bincount(index, weights=residuals) / sizes
    between = float(np.sum(sizes * (means - residuals.mean()) ** 2)) / (n_runs - 1)
    within = float(np.sum((residuals - means[index]) ** 2)) / (count - n_runs)
    size = (count - float(np.sum(sizes**2)) / count) / (n_runs - 1)
    if between <= within:
        return 0.0
    return min(1.0, (between - within) / (between + (size - 1.0) * within))


def _aicc(count: float, variance: float, k: int) -> float | None:
    if count < k + 3:
        return None
    return count * float(np.log(variance)) + 2.0 * k + 2.0 * k * (k + 1) / (count - k - 1)
