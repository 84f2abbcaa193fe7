"""Whether at most a given share of the windows is clipped, tested while they are scored."""

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

from service.laws.quantities import Floats

Counts = npt.NDArray[np.int64]


def log_wealth(n: int, max_share: float, t: int, clipped: Counts) -> Floats:
    """Log wealth in nats against "more than `max_share` of the n windows are clipped", when
    `clipped` of the first t drawn without replacement were.

    A mixture of likelihood ratios: K clipped windows in all, weight 1 / (K + 1)^2 for every K
    that is few enough, against the least K that is too many. Each ratio is a martingale under
    that least K, and a supermartingale under more (the likelihood ratio is monotone), so the
    wealth passes 1/alpha with probability at most alpha. `inf` once too many are impossible.
    """
    least = fewest_too_many(n, max_share)
    if least > n:
        return np.full(len(clipped), np.inf)
    few = np.arange(least)
    weight = 1.0 / (few + 1.0) ** 2
    here = _log_chance(n, few[None], t, clipped[:, None])
    there = _log_chance(n, np.array([[least]]), t, clipped[:, None])
    known = np.isfinite(here)
    ratio = np.where(known, np.where(known, here, 0.0) - there, -np.inf)
    wealth = np.asarray(logsumexp(ratio, axis=1, b=weight / weight.sum()), np.float64)
    # More than the least too many, seen already: no evidence for few, whatever comes.
    return np.where(clipped >= least, -np.inf, wealth)


def fewest_too_many(n: int, max_share: float) -> int:
    """The least whole number above `max_share` of n; n + 1 where no number is."""
    return min(int(np.floor(max_share * n * (1 + 1e-12))), n) + 1


def _log_chance(n: int, k: Counts, t: int, c: Counts) -> Floats:
    """Log probability of one sequence of t draws with c clipped, of n windows with k clipped."""
    possible = (k >= c) & (n - k >= t - c)
    with np.errstate(invalid="ignore"):
        value = _log_falling(k, c) + _log_falling(n - k, t - c) - _log_falling(np.array(n), t)
    return np.where(possible, value, -np.inf)


def _log_falling(a: Counts, b: Counts | int) -> Floats:
    """log of a (a - 1) … (a - b + 1), for 0 <= b <= a; meaningless elsewhere."""
    return np.asarray(gammaln(a + 1.0) - gammaln(np.maximum(a - b, 0) + 1.0), np.float64)
