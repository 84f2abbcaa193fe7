"""What runs tell of a law's error: points of one run drift together, so each run is one witness.

The law is linearised at its minimum, and the error of anything smooth in it has the bias-reduced
cluster-robust variance (CR2, Bell & McCaffrey 2002): a run that bends the law towards itself
leaves too small a residual, which its leverage undoes. How the points of a run drift need not be
known. With few runs the estimated variance varies itself, the more the fewer runs a place hangs
on; its distribution is a sum whose parts `Clusters.error` gives (as in Imbens & Kolesar 2016).

Array axes: g groups of runs, k points, c coefficients, p directions that the points tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.laws.quantities import Floats, Sample

Rows = tuple[tuple[float, ...], ...]

MAX_GROUPS = 32
"""More runs than this are put together in groups."""
SINGULAR = 1e-10
"""Least singular value, over the largest: what the points do not tell gets a huge error."""
ALONE = 1e-6
"""1 - leverage below which one group alone decides a direction, and nobody can say how well."""


@dataclass(frozen=True)
class Clusters:
    """The linearised law in orthonormal directions, and each group's part in it."""

    basis: Rows  # (c, p), derivative of the coefficients by the directions
    leverage: Rows  # (g, p * p), share of each direction's information
    score: Rows  # (g, p), each group's push on the directions, its own leverage undone

    @classmethod
    def of(cls, points: Sample, jacobian: Floats, residuals: Floats) -> "Clusters":
        """jacobian: (k, c), by any coefficients. residuals: (k,), pseudo-residuals of the loss."""
        root = np.sqrt(points.weight)
        lengths = np.linalg.norm(root[:, None] * jacobian, axis=0)
        lengths = np.where(lengths > 0, lengths, 1.0)
        axes, singular, turned = np.linalg.svd(
            root[:, None] * jacobian / lengths, full_matrices=False
        )
        singular = np.maximum(singular, SINGULAR * singular[0])
        basis = (turned / singular[:, None] / lengths).T
        n_groups = min(len(points.runs), MAX_GROUPS)
        member = (points.run % n_groups)[:, None] == np.arange(n_groups)
        parts = [axes[member[:, group]] for group in range(n_groups)]
        leverage = np.array([part.T @ part for part in parts])
        pushed = np.array(
            [part.T @ (root * residuals)[member[:, group]] for group, part in enumerate(parts)]
        )
        own, vectors = np.linalg.eigh(leverage)
        undone = np.einsum("gpq,gq,grq,gr->gp", vectors, _undo(own), vectors, pushed)
        return cls(
            basis=_rows(basis), leverage=_rows(leverage.reshape(n_groups, -1)), score=_rows(undone)
        )

    def scale(self, gradient: Floats) -> Floats:
        """Standard error of what has `gradient` (m, c) under independent noise of 1: (m,)."""
        return np.asarray(np.linalg.norm(gradient @ np.array(self.basis), axis=1))

    def error(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Standard error of what has `gradient` (m, c), and what its square is a sum of.

        The error is (m,), infinite where one group alone decides. Under equal independent noise
        its square is distributed like chi-squared variables of one degree of freedom each, times
        the shares (m, g), which add up to 1.
        """
        h = gradient @ np.array(self.basis)  # (m, p)
        variance = ((h @ np.array(self.score).T) ** 2).sum(axis=1)
        p = h.shape[1]
        own, vectors = np.linalg.eigh(np.array(self.leverage).reshape(-1, p, p))  # (g, p)
        along = np.einsum("gpq,mp->mgq", vectors, h)
        alone = ((along**2 * (own > 1.0 - ALONE)).sum(axis=(1, 2))) > 1e-6 * (h**2).sum(axis=1)
        # The covariance of what is squared: each group's own part, less what the fit shares out.
        undone = _undo(own)
        part = np.einsum("gpq,mgq->mgp", vectors, along * own * undone)
        covariance = -np.einsum("mgp,mhp->mgh", part, part)
        groups = np.arange(covariance.shape[1])
        covariance[:, groups, groups] += (along**2 * own * undone**2).sum(axis=2)
        spectrum = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
        total = spectrum.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, spectrum / np.maximum(total, 1e-300), 1.0 / len(groups))
        return np.where(alone, np.inf, np.sqrt(variance)), shares

    def to_json(self) -> dict[str, Any]:
        return {name: [list(row) for row in getattr(self, name)] for name in _FIELDS}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Clusters":
        return cls(
            **{name: tuple(tuple(float(x) for x in row) for row in body[name]) for name in _FIELDS}
        )


_FIELDS = ("basis", "leverage", "score")


def _undo(leverage: Floats) -> Floats:
    """(1 - leverage)^(-1/2); 0 where a group alone decides."""
    rest = 1.0 - leverage
    return np.where(rest > ALONE, 1.0 / np.sqrt(np.maximum(rest, ALONE)), 0.0)


def _rows(matrix: Floats) -> Rows:
    return tuple(tuple(float(x) for x in row) for row in matrix)
