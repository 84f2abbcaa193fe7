"""How far apart runs fall that differ in nothing but the seed: the unit of every error."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.laws.measured import Measured
from service.laws.quantities import Floats


@dataclass(frozen=True)
class Spread:
    """A standard deviation of forgetting, nats per token."""

    nats: float
    source: Literal["seeds", "residuals"]
    """`residuals`: no (P, N) was measured by two runs, so the law's own scatter stands in."""
    n_places: int
    """Places (P, N) that two or more runs share; 0 for residuals."""
    freedom: int


def repeats(known: Measured, column: Floats) -> list[Floats]:
    """`column` of the points that share P, N and learning rate, where two or more runs do."""
    groups: dict[tuple[float, ...], list[float]] = defaultdict(list)
    for point, number in zip(known.points, column, strict=True):
        rate = -1.0 if point.learning_rate is None else point.learning_rate
        groups[point.trainable_params, point.step, rate].append(float(number))
    return [np.array(group) for group in groups.values() if len(group) > 1]


def of_seeds(known: Measured) -> Spread | None:
    """Pooled standard deviation between runs at equal P and N; null without such runs."""
    groups = repeats(known, known.value)
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return Spread(float(np.sqrt(squares / freedom)), "seeds", len(groups), freedom)


def covariance_of_seeds(known: Measured) -> Floats | None:
    """Pooled covariance (2, 2) of (L_ft, L_f) between runs at equal P and N; null without any."""
    losses, values = repeats(known, known.ft_loss), repeats(known, known.value)
    freedom = sum(len(group) - 1 for group in values)
    if freedom < 2:
        return None
    off = np.array(
        [
            np.concatenate([group - group.mean() for group in losses]),
            np.concatenate([group - group.mean() for group in values]),
        ]
    )
    return np.asarray(off @ off.T / freedom)
