"""The rule that ends a pass: evidence from windows scored so far, for many orders at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.laws.betting import Bets, Population
from service.laws.clipped import log_wealth
from service.laws.quantities import Floats

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bounds:
    """What the values of windows are clipped to, and how many may be.

    The gate's estimand is the mean of the clipped values where at most `max_clipped_share` of
    all windows are clipped, and otherwise the mean itself, for which everything is scored.
    """

    low: float
    high: float
    max_clipped_share: float | None = None
    """Null where the bounds hold by construction, so nothing is clipped."""
    both: bool = False
    """Whether `low` clips too, so that a fail needs few clipped windows as a pass does."""


class Evidence:
    """Log wealth for and against each row's limit. One row per order."""

    def __init__(self, population: Population, *, limit: Floats, bounds: list[Bounds]) -> None:
        self.bounds = bounds[0]
        self.low = np.array([b.low for b in bounds])
        self.high = np.array([b.high for b in bounds])
        self.n_clipped = np.zeros(len(limit), np.int64)
        self.few_clipped = np.zeros(len(limit))
        if self.bounds.max_clipped_share is None:
            self.few_clipped += np.inf
        self.bets = Bets(population, limit=limit, low=self.low, high=self.high)

    def keep(self, rows: Booleans) -> None:
        """Go on with these rows only."""
        self.low, self.high = self.low[rows], self.high[rows]
        self.n_clipped, self.few_clipped = self.n_clipped[rows], self.few_clipped[rows]
        self.bets.keep(rows)

    def observe(self, values: Floats, controls: Floats) -> None:
        """Values (rows, b) as they are, unclipped, in order; controls (rows, b, k)."""
        low, high = self.low[:, None], self.high[:, None]
        self.bets.observe(np.clip(values, low, high), controls)
        share = self.bounds.max_clipped_share
        if share is None:
            return
        clipped = values > high
        if self.bounds.both:
            clipped |= values < low
        self.n_clipped += clipped.sum(axis=1)
        counts, place = np.unique(self.n_clipped, return_inverse=True)
        wealth = log_wealth(self.bets.population.n, share, self.bets.t, counts)
        np.maximum(self.few_clipped, wealth[place], out=self.few_clipped)

    def failed(self, alpha: float) -> Booleans:
        """Rows whose estimand is above the limit, wrongly with probability at most alpha."""
        above = self.bets.greater >= -np.log(alpha)
        if self.bounds.both:
            above &= self.few_clipped >= -np.log(alpha)
        return np.asarray(above, np.bool_)

    def passed(self, alpha: float) -> Booleans:
        """Rows whose estimand is at most the limit, wrongly with probability at most alpha.

        Both the mean and the share of clipped windows are tested at alpha, undivided: a pass
        needs both, so it is wrong only if one particular of the two tests is.
        """
        enough = -np.log(alpha)
        below = (self.bets.less >= enough) & (self.few_clipped >= enough)
        return np.asarray(below, np.bool_)


def estimand(values: Floats, bounds: Bounds) -> float:
    """Of all windows' values, in the corpus's order: what an exhausted test compares."""
    clipped = np.clip(values, bounds.low, bounds.high)
    if bounds.max_clipped_share is None:
        return float(clipped.mean())
    outside = values > bounds.high
    if bounds.both:
        outside |= values < bounds.low
    few = outside.sum() <= bounds.max_clipped_share * len(values) * (1 + 1e-12)
    return float((clipped if few else values).mean())
