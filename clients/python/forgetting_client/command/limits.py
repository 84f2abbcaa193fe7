"""Limits from adapters that are known to be good. Pure: a result in, numbers out.

The rule, for each metric on which more is worse (of agreement: disagreement):
    limit = the largest of  margin x worst,  worst + sqrt((2 spread)^2 + half^2),  3 noise floors
with `worst` the worst good adapter, `spread` the standard deviation between the adapters, `half`
half the 95 % interval of the worst one; rounded up. The warning lies half-way from the worst to it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 2
"""Significant, of a limit: nobody remembers more."""
NOISE_FLOORS = 3.0
"""A gate refuses limits below so many."""


@dataclass(frozen=True)
class Limit:
    metric: str
    worst: float
    which: int
    """Index of the adapter that is the worst one, from 0."""
    spread: float | None
    """Null of one adapter: unknown."""
    half: float | None
    """Null where there is no interval."""
    warn: float
    fail: float

    @property
    def floored(self) -> bool:
        """Whether this metric is an agreement, whose limits are floors."""
        return self.metric.startswith("same_top")


def limits(result: Mapping[str, Any], *, margin: float) -> list[Limit]:
    """Of kl, kl_percentiles.p99 and same_top, from all adapters of an evaluate job's result."""
    scores = [one["forgetting"] for one in result["checkpoints"]]
    floor = NOISE_FLOORS * abs(result["noise_floor"]["kl"])
    tails = [{"value": one["kl_percentiles"]["p99"], "ci95": None} for one in scores]
    return [
        above("kl", [one["kl"] for one in scores], margin=margin, floor=floor),
        above("kl_percentiles.p99", tails, margin=margin, floor=floor),
        below("same_top", [one["same_top"] for one in scores], margin=margin),
    ]


def above(metric: str, found: Sequence[Mapping[str, Any]], *, margin: float, floor: float) -> Limit:
    """`floor`: the limit's least value, above 0 or else what rounding makes of it."""
    values = [float(one["value"]) for one in found]
    which = max(range(len(values)), key=values.__getitem__)
    worst, ends = values[which], found[which]["ci95"]
    half = None if ends is None else (ends[1] - ends[0]) / 2
    spread = statistics.stdev(values) if len(values) > 1 else None
    reach = math.hypot(2 * (spread or 0.0), half or 0.0)
    limit = rounded_up(max(margin * worst, worst + reach, floor, 1e-6))
    return Limit(metric, worst, which, spread, half, between(worst, limit), limit)


def below(metric: str, found: Sequence[Mapping[str, Any]], *, margin: float) -> Limit:
    """Agreement by its opposite; never less than half of what the worst one agrees."""
    unlike = [
        {
            "value": 1 - one["value"],
            "ci95": one["ci95"] and [1 - one["ci95"][1], 1 - one["ci95"][0]],
        }
        for one in found
    ]
    turned = above(metric, unlike, margin=margin, floor=1e-3)
    least = 1 - turned.worst
    fail = max(1 - turned.fail, rounded_up(least / 2))
    warn = fail + (least - fail) / 2
    digits = 3 if least - fail < 0.02 else 2
    return Limit(
        metric,
        least,
        turned.which,
        turned.spread,
        turned.half,
        float(f"{warn:.{digits + 1}f}"),
        math.floor(fail * 10**digits + 1e-9) / 10**digits,
    )


def rounded_up(value: float, digits: int = DIGITS) -> float:
    """To so many significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{digits}g}")


def between(worst: float, limit: float) -> float:
    """Half-way, with a digit more than the limit has."""
    return float(f"{(worst + limit) / 2:.{DIGITS + 1}g}")
