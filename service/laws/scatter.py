"""How far a fresh run falls from the curve: what differs between runs, and within a run.

Two sums of squared residuals, of points and of the runs' means, have expectations that are linear
in the two variances; solving for these is the method of moments (Henderson 1953), with what the
fitted law has taken up counted in full. Runs of different seeds at one rank tell most.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from service.laws.quantities import Floats, Sample


@dataclass(frozen=True)
class Scatter:
    """Standard deviations in nats per token."""

    between_sd: float
    """Of a run's offset from the curve."""
    within_sd: float
    """Of a point about its run."""
    freedom: float
    """Degrees of freedom that the two together have, after Satterthwaite."""

    @property
    def sd(self) -> float:
        """Of one point of a fresh run about the curve."""
        return math.hypot(self.between_sd, self.within_sd)

    def to_json(self) -> dict[str, float]:
        return {"sd": self.sd, **asdict(self)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Scatter":
        return cls(**{one.name: float(body[one.name]) for one in fields(cls)})


def scatter(points: Sample, jacobian: Floats, residuals: Floats) -> Scatter:
    """jacobian: (k, c). residuals: (k,), measured minus fitted, of the weighted fit."""
    root = np.sqrt(points.weight)
    n_runs, k = len(points.runs), points.n_points
    lengths = np.linalg.norm(jacobian, axis=0)
    axes, singular, _ = np.linalg.svd(
        root[:, None] * jacobian / np.where(lengths > 0, lengths, 1.0), full_matrices=False
    )
    axes = axes[:, singular > 1e-10 * singular[0]]
    member = (points.run[:, None] == np.arange(n_runs)).astype(np.float64)
    means = member / np.sqrt(member.sum(axis=0))  # (k, g), orthonormal
    # All that happens, happens in the span of these; outside it the noise is left as it is.
    frame, _ = np.linalg.qr(np.hstack([means, axes]))
    outside = k - frame.shape[1]
    q, m, z = frame.T @ axes, frame.T @ means, frame.T @ (root[:, None] * member)
    keep = np.eye(frame.shape[1]) - q @ q.T
    forms = keep, keep @ m @ m.T @ keep  # sum of squares, of points and of runs' means
    within = frame.T @ (points.weight[:, None] * frame)
    left = float(points.weight.sum() - np.trace(within))
    between = z @ z.T
    expected = np.array(
        [
            [np.trace(forms[0] @ between), np.trace(forms[0] @ within) + left],
            [np.trace(forms[1] @ between), np.trace(forms[1] @ within)],
        ]
    )
    scaled = root * residuals
    found = np.array([scaled @ scaled, ((means.T @ scaled) ** 2).sum()])
    weights = np.array([1.0 / max(expected[0, 1], 1e-300), 0.0])
    variances = np.array([0.0, found[0] * weights[0]])
    if np.linalg.cond(expected) < 1e8:
        solved = np.linalg.solve(expected, found)
        if solved[0] > 0 and solved[1] > 0:
            variances, weights = solved, np.linalg.inv(expected).sum(axis=0)
        elif solved[1] <= 0:
            weights = np.array([0.0, 1.0 / expected[1, 0]])
            variances = np.array([found[1] * weights[1], 0.0])
    form = weights[0] * forms[0] + weights[1] * forms[1]
    noise = form @ (variances[0] * between + variances[1] * within)
    rest = weights[0] * variances[1] * left / max(1, outside)
    trace, squares = np.trace(noise) + outside * rest, np.trace(noise @ noise) + outside * rest**2
    freedom = trace**2 / squares if squares > 0 else float(max(1, k - axes.shape[1]))
    return Scatter(
        between_sd=math.sqrt(variances[0]),
        within_sd=math.sqrt(variances[1]),
        freedom=max(1.0, float(freedom)),
    )
