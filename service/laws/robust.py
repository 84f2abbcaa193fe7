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


def scale_of(residuals: Floats, *, spread: float, n_coefficients: int) -> float:
    """Scale for the next fit from the residuals of the last one, by their median size."""
    freedom = max(1, len(residuals) - n_coefficients)
    inflation = float(np.sqrt(len(residuals) / freedom))
    sd = MAD_TO_SD * float(np.median(np.abs(residuals))) * inflation
    return max(SCALE_IN_SD * sd, FLOOR * spread)


def weights(residuals: Floats, scale: float) -> Floats:
    """Weight of each point in the least-squares problem with the same gradient."""
    if np.isinf(scale):
        return np.ones_like(residuals)
    return np.asarray(1.0 / np.sqrt(1.0 + (residuals / scale) ** 2))


def costs(residuals: Floats, scale: float) -> Floats:
    """Cost per point; half the squared residual where `scale` is infinite."""
    squares = residuals**2
    if np.isinf(scale):
        return np.asarray(0.5 * squares)
    # The plain difference loses every digit where residuals are far below the scale.
    return np.asarray(squares / (np.sqrt(1.0 + squares / scale**2) + 1.0))


@dataclass(frozen=True)
class Lines:
    """A batch of straight lines, and what they leave."""

    intercept: Floats  # (s,)
    slope: Floats  # (s,)
    residual: Floats  # (s, k)


def line(
    x: Floats, y: Floats, *, scale: float, kept: Floats, weight: Floats, max_rounds: int = 100
) -> Lines:
    """Soft-L1 lines y = intercept + slope * x by reweighting, one per row.

    x: (s, k) or (1, k); y: (k,). kept: (s, k), zero leaves a point out. weight: (s, k), where the
    reweighting starts. A row without spread in x gets slope 0.
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
