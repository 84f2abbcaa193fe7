"""How much of the forgetting a predictor explains: within runs, between runs, on unseen runs.

Forgetting rises and loss falls along every run, and any two monotone curves correlate: an R2 over
all points is mostly that. Whether a law knows anything is seen between runs, and on runs that it
was not fitted to.
"""

from dataclasses import dataclass

import numpy as np

from service.laws.measured import Measured
from service.laws.quantities import Floats


@dataclass(frozen=True)
class Explained:
    """Shares of the squared variation, weighted as in a fit. Null where nothing varies."""

    overall: float | None
    within_runs: float | None
    """About each run's own mean, of the measured and of the predicted values alike."""
    between_runs: float | None
    """Of the runs' means about their mean."""
    unseen_runs: float | None
    """Predictive: each run by the fit to all others, against the mean of all others."""
    rmse: float
    """In-sample, nats per token."""


def explained(
    known: Measured, expected: Floats, unseen: Floats | None, unseen_mean: Floats | None
) -> Explained:
    """expected: fitted values in-sample (k,). unseen, unseen_mean: residuals (k,) of each point
    about the fit to, and about the mean of, all other runs."""
    weight, miss = known.weight, known.value - expected
    value, missed = _by_run(known, known.value), _by_run(known, miss)
    total = known.value - np.average(known.value, weights=weight)
    between = value - np.average(value, weights=weight)
    predictive = None
    if unseen is not None and unseen_mean is not None:
        predictive = _share(unseen, unseen_mean, weight)
    return Explained(
        overall=_share(miss, total, weight),
        within_runs=_share(miss - missed, known.value - value, weight),
        between_runs=_share(missed, between, weight),
        unseen_runs=predictive,
        rmse=float(np.sqrt(np.average(miss**2, weights=weight))),
    )


def _by_run(known: Measured, column: Floats) -> Floats:
    """The mean of each point's run: (k,)."""
    index = known.run_index
    return np.asarray((np.bincount(index, weights=column) / np.bincount(index))[index])


def _share(left: Floats, total: Floats, weight: Floats) -> float | None:
    """1 - squares left over squares in all; null where there was nothing to explain."""
    whole = float(np.sum(weight * total**2))
    if whole <= 1e-24 * len(total):
        return None
    return 1.0 - float(np.sum(weight * left**2)) / whole
