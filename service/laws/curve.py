"""The joint law as a curve: its centred shape for searching, its six wire numbers for reading.

In the centred form the law is level + slope * (u^rho - 1), with
u = w e^(-alpha p) + (1 - w) e^(-beta n), p = ln(P/P0), n = ln(N/N0), and P0, N0 the geometric
means of the points. The slope's sign is the law's sign. Units of P and N drop out of the shape
(logit w, ln alpha, ln beta, ln rho), and so does a constant added to forgetting.

Array axes: s laws, k points, 4 shape numbers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.laws.quantities import Floats, Sample

LOWER = np.array([-9.0, np.log(1e-4), np.log(1e-4), np.log(0.1)])
UPPER = np.array([9.0, np.log(5.0), np.log(5.0), np.log(50.0)])
"""Bounds of the shape: odds of w, alpha, beta, rho in log space."""
LARGEST_POWER = 30.0
"""The search stays where |ln u^rho| is below this at every point: 13 decades of forgetting."""
LARGEST_LOG = 690.0
"""A and B lie within e^+-690, where floats still reach; the bounds above see to it."""


@dataclass(frozen=True)
class Plane:
    """Where the points lie, in centred logarithms."""

    p: Floats  # (k,)
    n: Floats  # (k,)
    log_p0: float
    log_n0: float

    @classmethod
    def of(cls, points: Sample) -> "Plane":
        log_p0, log_n0 = float(np.log(points.params).mean()), float(np.log(points.step).mean())
        return cls.at(points.params, points.step, centre=(log_p0, log_n0))

    @classmethod
    def at(
        cls, trainable_params: npt.ArrayLike, step: npt.ArrayLike, *, centre: tuple[float, float]
    ) -> "Plane":
        """Any places, seen from the centre of a law's points."""
        log_p, log_n = np.atleast_1d(np.log(trainable_params)), np.atleast_1d(np.log(step))
        return cls(p=log_p - centre[0], n=log_n - centre[1], log_p0=centre[0], log_n0=centre[1])


def evaluate(values: Floats, trainable_params: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Forgetting by the wire form, sign * (A P^-alpha + B N^-beta)^rho + shift.

    values: (..., 7), columns A, alpha, B, beta, rho, shift, sign; the rest broadcasts.
    """
    a, alpha, b, beta, rho, shift, sign = np.moveaxis(values, -1, 0)
    log_sum = np.logaddexp(
        np.log(a) - alpha * np.log(trainable_params), np.log(b) - beta * np.log(step)
    )
    # Floats end at e^709, and intervals square what comes from here.
    return np.asarray(sign * np.exp(np.minimum(rho * log_sum, 300.0)) + shift)


def wire(shape: Floats, level: Floats, slope: Floats, plane: Plane) -> Floats:
    """Centred laws as A, alpha, B, beta, rho, shift, sign: (s, 7)."""
    w_logit, alpha, beta, rho = (column[:, 0] for column in _columns(shape))
    # |slope| u^rho = (|slope|^(1/rho) u)^rho, so the size of the slope goes into A and B.
    log_size = np.log(np.maximum(np.abs(slope), 1e-300)) / rho
    log_a = log_size - np.logaddexp(0.0, -w_logit) + alpha * plane.log_p0
    log_b = log_size - np.logaddexp(0.0, w_logit) + beta * plane.log_n0
    reach = (-LARGEST_LOG, LARGEST_LOG)
    return np.stack(
        [
            np.exp(np.clip(log_a, *reach)),
            alpha,
            np.exp(np.clip(log_b, *reach)),
            beta,
            rho,
            level - slope,
            np.where(slope < 0, -1.0, 1.0),
        ],
        axis=1,
    )


def centred(values: Floats, plane: Plane) -> tuple[Floats, float, float]:
    """Inverse of `wire` for one law: shape (1, 4), level and slope."""
    a, alpha, b, beta, rho, shift, sign = (float(x) for x in values)
    from_p = np.log(a) - alpha * plane.log_p0
    from_n = np.log(b) - beta * plane.log_n0
    slope = sign * float(np.exp(rho * np.logaddexp(from_p, from_n)))
    shape = np.array([[from_p - from_n, np.log(alpha), np.log(beta), np.log(rho)]])
    return shape, shift + slope, slope


def gradient(shape: Floats, slope: float, plane: Plane) -> Floats:
    """Derivative of one law by its shape, slope and level, at the places of `plane`: (k, 6)."""
    grown = growth(shape, plane)
    by_shape = slope * slopes_of_growth(shape, plane, grown)[0]
    return np.vstack([by_shape, grown[0], np.ones_like(grown[0])]).T


def chart(shape: Floats, slope: float, plane: Plane) -> Floats:
    """Derivative of ln A, ln alpha, ln B, ln beta, ln rho, shift by shape, slope, level: (6, 6)."""
    w_logit, log_alpha, log_beta, log_rho = shape[0]
    w, rho = 1.0 / (1.0 + np.exp(-w_logit)), np.exp(log_rho)
    size = max(abs(slope), 1e-300)
    by_rho, by_slope = -np.log(size) / rho, np.copysign(1.0 / (rho * size), slope)
    return np.array(
        [
            [1.0 - w, np.exp(log_alpha) * plane.log_p0, 0.0, by_rho, by_slope, 0.0],
            [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
            [-w, 0.0, np.exp(log_beta) * plane.log_n0, by_rho, by_slope, 0.0],
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, -1.0, 1.0],
        ]
    )


def growth(shape: Floats, plane: Plane) -> tuple[Floats, Floats, Floats]:
    """`u^rho - 1`, `ln u` and the share of the P term in u, each (s, k)."""
    w_logit, alpha, beta, rho = _columns(shape)
    from_p = -np.logaddexp(0.0, -w_logit) - alpha * plane.p
    from_n = -np.logaddexp(0.0, w_logit) - beta * plane.n
    log_u = np.logaddexp(from_p, from_n)
    # Shapes beyond LARGEST_POWER are refused by the search, but must not overflow before.
    return np.expm1(np.clip(rho * log_u, -100.0, 100.0)), log_u, np.exp(from_p - log_u)


def slopes_of_growth(shape: Floats, plane: Plane, grown: tuple[Floats, Floats, Floats]) -> Floats:
    """Derivative of `u^rho - 1` by the shape: (s, 4, k)."""
    w_logit, alpha, beta, rho = _columns(shape)
    power, log_u, share = grown
    outer = rho * (power + 1.0)
    w = 1.0 / (1.0 + np.exp(-w_logit))
    return np.stack(
        [
            outer * (share - w),
            -outer * alpha * plane.p * share,
            -outer * beta * plane.n * (1.0 - share),
            outer * log_u,
        ],
        axis=1,
    )


def _columns(shape: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """logit w, alpha, beta, rho, each (s, 1)."""
    return (
        shape[:, 0:1],
        np.exp(shape[:, 1:2]),
        np.exp(shape[:, 2:3]),
        np.exp(shape[:, 3:4]),
    )
