"""Soft-L1 loss, scipy's convention: s^2 (sqrt(1 + (r/s)^2) - 1) per residual r, with scale s.

Quadratic well inside s, linear far outside, so that one bad point cannot bend a law.
"""

from dataclasses import dataclass

import numpy as np

from service.laws.quantities import Floats

SCALE_IN_SD = 1.5
"""Scale over the residuals' standard deviation: 97 % efficient on Gaussian noise."""
FLOOR = 1e-4
"""Least scale as a share of the forgetting's spread; below it noise is no concern."""
MAD_TO_SD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


def scale_of(residuals: Floats, weight: Floats, *, spread: float, n_coefficients: int) -> float:
    """Scale for the next fit from the residuals of the last one, by their weighted median size."""
    freedom = max(1, len(residuals) - n_coefficients)
    inflation = float(np.sqrt(len(residuals) / freedom))
    sd = MAD_TO_SD * _median(np.abs(residuals), weight) * inflation
    return max(SCALE_IN_SD * sd, FLOOR * spread)


def _median(sizes: Floats, weight: Floats) -> float:
    """Weighted median; the plain one where all weigh the same."""
    order = np.argsort(sizes, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    # The half may fall between two sizes, and rounding must not choose the side.
    low = int(np.searchsorted(share, 0.5 - 1e-9))
    high = int(np.searchsorted(share, 0.5 + 1e-9))
    return 0.5 * float(sizes[order[low]] + sizes[order[min(high, len(sizes) - 1)]])


Scale = float | Floats
"""Of a batch of laws, or of each of them, (s, 1); infinite for plain squares."""


def weights(residuals: Floats, scale: Scale) -> Floats:
    """Weight of each point in the least-squares problem with the same gradient."""
    return np.asarray(1.0 / np.sqrt(1.0 + (residuals / scale) ** 2))


def pseudo_residuals(residuals: Floats, weight: Floats, scale: float) -> Floats:
    """Residuals for which least squares makes the same step as the soft-L1 loss does.

    The loss's slope over the mean of its curvature, so that errors of the law come out as
    Huber's (1981): the weights alone would make them a fifth too small.
    """
    if np.isinf(scale):
        return residuals
    each = weights(residuals, scale)
    return np.asarray(residuals * each / np.average(each**3, weights=weight))


def costs(residuals: Floats, scale: Scale) -> Floats:
    """Cost per point; half the squared residual where `scale` is infinite."""
    squares = residuals**2
    # The plain difference loses every digit where residuals are far below the scale.
    return np.asarray(squares / (np.sqrt(1.0 + squares / scale**2) + 1.0))


@dataclass(frozen=True)
class Lines:
    """A batch of straight lines, and what they leave."""

    intercept: Floats  # (s,)
    slope: Floats  # (s,)
    residual: Floats  # (s, k)


def line(
    x: Floats, y: Floats, *, scale: Scale, kept: Floats, weight: Floats, max_rounds: int = 100
) -> Lines:
    """Soft-L1 lines y = intercept + slope * x by reweighting, one per row.

    x: (s, k) or (1, k); y: (k,) or (s, k). kept: (s, k), weight of each point. weight: (s, k),
    where the reweighting starts. A row without spread in x gets slope 0.
    """
    previous = np.full(len(kept), np.inf)
    for _ in range(max_rounds):
        total = weight.sum(axis=1, keepdims=True)
        mean_x = (weight * x).sum(axis=1, keepdims=True) / total
        mean_y = (weight * y).sum(axis=1, keepdims=True) / total
        off = x - mean_x
        flat = (weight * off**2).sum(axis=1)
        slope = (weight * off * (y - mean_y)).sum(axis=1) / np.where(flat > 0, flat, 1.0)
        residual = (y - mean_y) - slope[:, None] * off
        weight = kept * weights(residual, scale)
        if np.all(np.abs(slope - previous) <= 1e-13 * np.abs(slope)):
            break
        previous = slope
    return Lines(mean_y[:, 0] - slope * mean_x[:, 0], slope, residual)
