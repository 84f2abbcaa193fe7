"""What a check reads from each window, its limit and its bounds: everything as "the mean of
bounded window values is at most a limit", which is what the sequential test decides.

A percentile needs no method of its own: the q-th percentile of KL over positions is at most L
exactly if at most 1 - q of all positions lie above L, and that share is a mean of window values
between 0 and n_w / mean(n). Agreement is tested as disagreement, the same way. Nothing is
clipped in either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.laws.decide import Bounds
from service.laws.quantities import Floats
from service.laws.sequential import CLIP, clipped_share

MEANS = ("kl", "kl_reverse", "ce_soft", "ce_hard", "nll_tuned")
AGREEMENTS = ("same_top", "same_top5")
PERCENTILES = {
    f"kl_percentiles.{name}": share
    for name, share in {
        "p99.9": 0.999,
        "p99": 0.99,
        "p95": 0.95,
        "p90": 0.9,
        "median": 0.5,
        "p10": 0.1,
        "p5": 0.05,
        "p1": 0.01,
        "p0.1": 0.001,
    }.items()
}
NUMBERS = ("law_residual", "law_residual_z")
"""One number of the whole candidate: compared as it is, not tested."""

LEAST = 1e-9
"""Of a limit, nats per token or a share: a square of much less is 0 to a float64, and what is
below is rounding."""

Kind = Literal["mean", "percentile", "agreement", "increase"]
Positions = Mapping[str, npt.NDArray[np.generic]]
"""Of one window: arrays over its scored positions, by metric; a baseline's as `kl@name`."""


class BadCheck(ValueError):
    """A check that no test can decide. `field` is the one to blame."""

    def __init__(self, message: str, *, check: str, field: str) -> None:
        super().__init__(message)
        self.message, self.check, self.field = message, check, field


@dataclass(frozen=True)
class Check:
    """One line of a policy. With `baseline` it limits the increase over that adapter's."""

    id: str
    metric: str
    fail_above: float | None = None
    warn_above: float | None = None
    fail_below: float | None = None
    warn_below: float | None = None
    informational: bool = False
    """Reported, never counted, and never a reason to score more."""
    baseline: str | None = None
    max_increase: float | None = None
    clip: float = CLIP
    """Window values are clipped at this many limits; means and increases only."""

    @property
    def fails(self) -> float | None:
        """The limit that fails it, in its metric's unit; null if it only warns."""
        if self.metric in AGREEMENTS:
            return self.fail_below
        return self.max_increase if self.baseline is not None else self.fail_above

    @property
    def warns(self) -> float | None:
        return self.warn_below if self.metric in AGREEMENTS else self.warn_above


@dataclass(frozen=True)
class Statistic:
    kind: Kind
    columns: tuple[str, ...]
    """Arrays over positions that `read` needs."""
    limit: float
    bounds: Bounds
    threshold: float = 0.0
    """A percentile's limit in nats; the test's own limit is then a share of positions."""

    def read(self, positions: Positions) -> float:
        """The mean over one window's positions."""
        first = np.asarray(positions[self.columns[0]], np.float64)
        if self.kind == "percentile":
            return float((first > self.threshold).mean())
        if self.kind == "agreement":
            return 1.0 - float(first.mean())
        if self.kind == "increase":
            return float((first - np.asarray(positions[self.columns[1]], np.float64)).mean())
        return float(first.mean())


def statistic_of(check: Check, sizes: Floats | npt.NDArray[np.int64]) -> Statistic:
    """How `check` is tested on windows of `sizes` positions. Raises BadCheck.

    A check that only warns is tested against its warn limit.
    """
    limit = check.fails if check.fails is not None else check.warns
    if limit is None:
        raise _bad(check, _limit_field(check), "has no limit")
    for field in _strangers(check):
        raise _bad(check, field, f"means nothing for {check.metric}")
    if not np.isfinite(limit) or limit < LEAST:
        raise _bad(check, _limit_field(check), f"must be at least {LEAST:g}, is {limit:g}")
    whole = Bounds(0.0, float(np.max(sizes) / np.mean(sizes)))
    if check.metric in AGREEMENTS:
        if limit > 1 - LEAST:
            raise _bad(check, _limit_field(check), f"must be at most 1 - {LEAST:g}, is {limit:g}")
        return Statistic("agreement", (check.metric,), 1.0 - limit, whole)
    if check.metric in PERCENTILES:
        share = 1.0 - PERCENTILES[check.metric]
        return Statistic("percentile", ("kl",), share, whole, threshold=limit)
    if check.metric not in MEANS:
        raise _bad(check, "metric", f"{check.metric!r} cannot be tested window by window")
    if not check.clip > 1 + LEAST:
        raise _bad(check, "clip", f"must be above 1 limit, is {check.clip:g}")
    high, share = check.clip * limit, clipped_share(check.clip)
    if check.baseline is None:
        return Statistic("mean", (check.metric,), limit, Bounds(0.0, high, share))
    columns = (check.metric, f"{check.metric}@{check.baseline}")
    return Statistic("increase", columns, limit, Bounds(-high, high, share, both=True))


def _limit_field(check: Check) -> str:
    if check.baseline is not None:
        return "max_increase"
    return "fail_below" if check.metric in AGREEMENTS else "fail_above"


def _strangers(check: Check) -> list[str]:
    """Limits that are set and that this kind of check does not read."""
    read = {"fail_below", "warn_below"}
    if check.metric not in AGREEMENTS:
        read = {"max_increase", "warn_above"} if check.baseline else {"fail_above", "warn_above"}
    every = ("fail_above", "warn_above", "fail_below", "warn_below", "max_increase")
    found = [field for field in every if getattr(check, field) is not None and field not in read]
    if check.baseline is not None and check.metric not in MEANS:
        found.append("baseline")
    return found


def _bad(check: Check, field: str, why: str) -> BadCheck:
    return BadCheck(f"check {check.id!r}: {field} {why}", check=check.id, field=field)
