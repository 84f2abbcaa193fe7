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

from service.laws.clusters import SINGULAR
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
    lengths = np.linalg.norm(jacobian, axis=0)
    axes, singular, _ = np.linalg.svd(
        root[:, None] * jacobian / np.where(lengths > 0, lengths, 1.0), full_matrices=False
    )
    axes = axes[:, singular > SINGULAR * singular[0]]
    member = (points.run[:, None] == np.arange(len(points.runs))).astype(np.float64)  # (k, runs)
    means = member / np.sqrt(member.sum(axis=0))
    # All of it happens in the span of these two; outside of it the fit leaves noise as it is.
    frame, _ = np.linalg.qr(np.hstack([means, axes]))
    outside = points.n_points - frame.shape[1]
    fitted, m = frame.T @ axes, frame.T @ means
    left = np.eye(frame.shape[1]) - fitted @ fitted.T
    forms = np.stack([left, left @ m @ m.T @ left])  # of points, and of runs' means
    offsets = frame.T @ (root[:, None] * member)
    between, within = offsets @ offsets.T, frame.T @ (points.weight[:, None] * frame)
    within_outside = float(points.weight.sum() - np.trace(within))
    expected = np.array([[np.sum(form * between), np.sum(form * within)] for form in forms])
    expected[0, 1] += within_outside
    scaled = root * residuals
    found = np.array([scaled @ scaled, ((means.T @ scaled) ** 2).sum()])
    mix, variances = _solve(expected, found)
    # Satterthwaite: twice the squared mean of mix @ found over its variance under these variances.
    noise = np.tensordot(mix, forms, 1) @ (variances[0] * between + variances[1] * within)
    rest = mix[0] * variances[1] * within_outside / max(1, outside)
    squares = float(np.sum(noise * noise.T)) + outside * rest**2
    freedom = float(np.trace(noise) + outside * rest) ** 2 / squares if squares > 0 else 1.0
    return Scatter(
        between_sd=math.sqrt(variances[0]),
        within_sd=math.sqrt(variances[1]),
        freedom=max(1.0, float(freedom)),
    )


def _solve(expected: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Variances between and within runs, none negative, and what mix of `found` their sum is."""
    if np.linalg.cond(expected) < 1e8:
        variances = np.asarray(np.linalg.solve(expected, found), dtype=np.float64)
        if variances[0] > 0 and variances[1] > 0:
            return np.asarray(np.ones(2) @ np.linalg.inv(expected), dtype=np.float64), variances
        if variances[1] <= 0:
            mix = np.array([0.0, 1.0 / float(expected[1, 0])])
            return mix, np.array([mix @ found, 0.0])
    mix = np.array([1.0 / max(float(expected[0, 1]), 1e-300), 0.0])
    return mix, np.array([0.0, mix @ found])
