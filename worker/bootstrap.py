"""Intervals for token-weighted means: whole documents are resampled, paired over all metrics.

Tokens of one document drift together, so resampling tokens would give intervals far too narrow.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

MIN_DOCUMENTS = 10
BLOCK_DRAWS = 4_000_000
"""Documents drawn at once: bounds memory when there are many."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def ratio_intervals(
    sums: Float,
    counts: Float,
    *,
    level: float = 0.95,
    n_bootstrap: int = 10_000,
    seed: int = 17,
) -> list[Interval]:
    """BCa intervals of sums.sum(0) / counts.sum(), one per column of `sums` (documents, metrics).

    `counts` (documents,) are the positions behind each row of sums. Every resample is applied to
    all metrics at once. Efron 1987; acceleration by the jackknife over documents.
    """
    estimate = sums.sum(0) / counts.sum()  # (metrics,)
    resampled = _resample(sums, counts, n_bootstrap, seed)  # (resamples, metrics)
    tail = (1 - level) / 2
    probabilities = _bca_probabilities(
        resampled, estimate, _acceleration(sums, counts), np.array([tail, 1 - tail])
    )
    ends = [np.quantile(resampled[:, m], probabilities[:, m]) for m in range(sums.shape[1])]
    return [Interval(float(low), float(high)) for low, high in ends]


def _resample(sums: Float, counts: Float, n_bootstrap: int, seed: int) -> Float:
    rng = np.random.default_rng(seed)
    documents = len(counts)
    both = np.column_stack([sums, counts])
    rows = []
    block = max(1, BLOCK_DRAWS // documents)
    for start in range(0, n_bootstrap, block):
        size = min(block, n_bootstrap - start)
        drawn = rng.integers(documents, size=(size, documents))
        # How often each document was drawn, per resample: then the sums are one product.
        flat = (drawn + documents * np.arange(size)[:, None]).ravel()
        times = np.bincount(flat, minlength=size * documents).reshape(size, documents)
        rows.append(times @ both)
    totals = np.concatenate(rows)
    return totals[:, :-1] / totals[:, -1:]


def _acceleration(sums: Float, counts: Float) -> Float:
    """Skewness of the leave-one-document-out estimates, over six (metrics,)."""
    left_out = (sums.sum(0) - sums) / (counts.sum() - counts)[:, None]
    gaps = left_out.mean(0) - left_out
    spread = (gaps**2).sum(0) ** 1.5
    skew = (gaps**3).sum(0)
    return np.divide(skew, 6 * spread, out=np.zeros_like(skew), where=spread > 0)


def _bca_probabilities(
    resampled: Float, estimate: Float, acceleration: Float, wanted: Float
) -> Float:
    """Which quantiles of the resamples bound the interval (ends, metrics)."""
    below = ((resampled < estimate).mean(0) + (resampled <= estimate).mean(0)) / 2
    # Never wholly on one side: half a resample keeps the correction finite.
    edge = 0.5 / len(resampled)
    bias = ndtri(np.clip(below, edge, 1 - edge))
    shifted = bias + ndtri(wanted)[:, None]
    return ndtr(bias + shifted / (1 - acceleration * shifted))
