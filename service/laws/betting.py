"""Two bets against "the mean of all windows is the limit", for many orders of windows at once.

Windows come in random order without replacement, so under a mean m the next value has the known
conditional mean (N m - sum seen) / (N - t). Each bet's wealth is then a non-negative
supermartingale under its null, and passes 1/alpha with probability at most alpha however often
one looks (Ville). After Waudby-Smith & Ramdas, "Estimating means of bounded random variables by
betting" (2024), section 5; the control columns and the choice of the bets are ours.
"""

from dataclasses import dataclass

import numpy as np

from service.laws.quantities import Floats

MAX_FRACTION = 0.98
"""Of the largest bet that cannot lose everything: one value at the bound costs ln(50) nats."""
PRIOR_WINDOWS = 16
"""Imaginary windows before the first: their mean lies PRIOR_GAP of the limit on the side bet on,
their deviation is PRIOR_SD of the limit. They steer the first bets, not the error."""
PRIOR_GAP = 0.1
PRIOR_SD = 0.3
FIRST_FIT = 16
"""Windows before the first regression on the control columns; repeated at each doubling."""
RIDGE = 0.02
MAX_CONTROL = 2.0
ROUNDING = 1e-9
"""Of the limit: a remaining mean this far outside its bounds is rounding, not a contradiction."""


@dataclass(frozen=True)
class Population:
    """What is known of all windows before any is scored."""

    n: int
    controls: Floats  # (n, k), each column with mean 0 and deviation 1; k may be 0

    @classmethod
    def of(cls, n: int, columns: Floats) -> "Population":
        """Standardise `columns` (n, k), clipped at MAX_CONTROL deviations: a few outlying windows
        would else bound every bet. A constant column tells nothing and is left out."""
        spread = columns.std(axis=0)
        varied = spread > 1e-12 * np.abs(columns).max(axis=0, initial=0.0)
        kept = columns[:, varied]
        near = np.clip((kept - kept.mean(axis=0)) / spread[varied], -MAX_CONTROL, MAX_CONTROL)
        return cls(n, (near - near.mean(axis=0)) / near.std(axis=0))


class Bets:
    """One row per order. Values lie in [low, high]; `limit` lies strictly between.

    `greater` bets against mean <= limit, `less` against mean >= limit; both are log wealth in
    nats at its highest so far, infinite where the remaining values cannot make the null true.
    A bet may use the controls: a value is compared with what a regression on the windows
    scored before expects of it, less what that expects of all remaining ones, whose mean is
    zero by construction. Bets are fixed before a batch and see only earlier batches.
    """

    def __init__(self, population: Population, *, limit: Floats, low: Floats, high: Floats) -> None:
        rows, k = len(limit), population.controls.shape[1]
        self.population = population
        self.limit, self.low, self.high = limit, low, high
        self.t = 0
        self.greater, self.less = np.zeros(rows), np.zeros(rows)
        self.wealth = np.zeros((2, rows))
        """Log wealth now: greater, less."""
        self._sum, self._squares = np.zeros(rows), np.zeros(rows)
        self._sum_x, self._xx = np.zeros((rows, k)), np.zeros((rows, k, k))
        self._xy: Floats = np.zeros((rows, k))
        self._slope: Floats = np.zeros((rows, k))
        # x . slope: its range over all windows, and its sums over those seen
        self._most, self._least = np.zeros(rows), np.zeros(rows)
        self._reach, self._reach_squares = np.zeros(rows), np.zeros(rows)
        self._reach_values = np.zeros(rows)
        self._fraction, self._use = np.full((2, rows), MAX_FRACTION), np.zeros((2, rows))
        self._next_fit = FIRST_FIT
        self._choose()

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows only (a boolean mask)."""
        for name in ("wealth", "_fraction", "_use"):
            setattr(self, name, getattr(self, name)[:, rows])
        for name in ("limit", "low", "high", "greater", "less", "_sum", "_squares", "_sum_x"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("_xx", "_xy", "_slope", "_most", "_least"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("_reach", "_reach_squares", "_reach_values"):
            setattr(self, name, getattr(self, name)[rows])

    def observe(self, values: Floats, controls: Floats) -> None:
        """Play one batch: values (rows, b) in order, and the controls of their windows
        (rows, b, k)."""
        b = values.shape[1]
        left = self.population.n - self.t - np.arange(b)
        seen = np.cumsum(values, axis=1)
        null_mean = ((self.population.n * self.limit - self._sum)[:, None] - seen + values) / left
        surprise = values - null_mean
        expected: Floats = np.zeros_like(values)
        rest: Floats = np.zeros_like(values)
        reach: Floats = np.zeros_like(values)
        if self._slope.any():
            # All controls sum to zero, so those of the remaining windows to minus what was seen.
            reach = np.einsum("rbk,rk->rb", controls, self._slope)
            rest = -(self._reach[:, None] + np.cumsum(reach, axis=1) - reach) / left
            expected = reach - rest
        use = self._use[:, :, None]
        above_low = null_mean - self.low[:, None]
        below_high = self.high[:, None] - null_mean
        most, least = self._most[:, None], self._least[:, None]
        self._play(
            0,
            surprise - use[0] * expected,
            above_low + use[0] * (most - rest),
            above_low,
        )
        self._play(
            1,
            use[1] * expected - surprise,
            below_high + use[1] * (rest - least),
            below_high,
        )
        self.t += b
        self._sum += seen[:, -1]
        self._squares += (values * values).sum(axis=1)
        if self._slope.shape[1]:
            self._sum_x += controls.sum(axis=1)
            self._xx += controls.transpose(0, 2, 1) @ controls
            self._xy += (values[:, None, :] @ controls)[:, 0]
            self._reach += reach.sum(axis=1)
            self._reach_squares += (reach * reach).sum(axis=1)
            self._reach_values += (reach * values).sum(axis=1)
            if self.t >= self._next_fit:
                self._regress()
                while self._next_fit <= self.t:
                    self._next_fit *= 2
        if self.t < self.population.n:
            self._choose()

    def _play(self, side: int, gain: Floats, worst: Floats, room: Floats) -> None:
        """Bet a fraction of 1 / worst, where `gain` is never below -worst under any outcome.

        `room` is how far the remaining mean under the null lies inside its bound: below zero
        the null is impossible, at zero there is nothing to bet on.
        """
        unit = ROUNDING * (self.limit - self.low)[:, None]
        payoff = np.maximum(gain / np.where(room > unit, worst, 1.0), -1.0)
        steps = np.log1p(np.where(room > unit, self._fraction[side][:, None] * payoff, 0.0))
        steps[room < -unit] = np.inf
        wealth = self.wealth[side][:, None] + np.cumsum(steps, axis=1)
        self.wealth[side] = wealth[:, -1]
        peak = self.greater if side == 0 else self.less
        np.maximum(peak, wealth.max(axis=1), out=peak)

    def _regress(self) -> None:
        """Ridge regression of the values on the controls, over what was scored."""
        t, k = self.t, self._slope.shape[1]
        mean_x = self._sum_x / t
        cov = self._xx / t - mean_x[:, :, None] * mean_x[:, None, :]
        with_y = self._xy / t - mean_x * (self._sum / t)[:, None]
        ridge = (RIDGE + 1 / t) * np.eye(k)
        slope = np.linalg.solve(cov + ridge, with_y[..., None])[..., 0]
        self._slope = np.asarray(slope, np.float64)
        self._reach = (self._sum_x * self._slope).sum(axis=1)
        self._reach_squares = np.einsum("rk,rkl,rl->r", self._slope, self._xx, self._slope)
        self._reach_values = (self._xy * self._slope).sum(axis=1)
        for start in range(0, len(self._slope), 500):
            rows = slice(start, start + 500)
            reach = self.population.controls @ self._slope[rows].T  # (n, rows)
            self._most[rows], self._least[rows] = reach.max(axis=0), reach.min(axis=0)

    def _choose(self) -> None:
        """Fractions for the next batch: those that grow fastest to second order (aGRAPA), with
        the controls or without, whichever would have grown faster."""
        t, n = max(self.t, 1), self.population.n
        left = n - self.t
        unit = self.limit - self.low
        null_mean = (n * self.limit - self._sum) / left
        mean = self._sum / t
        variance = np.maximum(self._squares / t - mean**2, 0.0)
        options = [(0.0, mean, variance)]
        rest = -self._reach / left
        if self._slope.any():
            shift = self._reach / t
            covariance = self._reach_values / t - shift * mean
            explained = 2 * covariance - (self._reach_squares / t - shift**2)
            lost = t / max(t - self._slope.shape[1] - 1, 1)  # degrees of freedom
            options.append((1.0, mean - shift, np.maximum(variance - explained, 0.0) * lost))
        best = np.full((2, len(mean)), -np.inf)
        for use, centre, spread in options:
            square = (PRIOR_WINDOWS * (PRIOR_SD * unit) ** 2 + self.t * spread) / (
                PRIOR_WINDOWS + self.t
            )
            for side, sign in ((0, 1.0), (1, -1.0)):
                gap = PRIOR_WINDOWS * PRIOR_GAP * unit + sign * self.t * (centre - self.limit)
                gap = gap / (PRIOR_WINDOWS + self.t) * (n / left)
                if side == 0:
                    worst = null_mean - self.low + use * (self._most - rest)
                else:
                    worst = self.high - null_mean + use * (rest - self._least)
                worst = np.maximum(worst, ROUNDING * unit)
                moment = square + gap**2
                fraction = np.clip(gap * worst / moment, 0.0, MAX_FRACTION)
                growth = fraction * gap / worst - (fraction / worst) ** 2 * moment / 2
                better = growth > best[side]
                best[side][better] = growth[better]
                self._fraction[side][better] = fraction[better]
                self._use[side][better] = use
