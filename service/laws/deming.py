"""The line when both losses carry errors.

Least squares takes L_ft as exact; noise in it flattens the line (attenuation). With S the
covariance of the points and E that of their errors, both of (L_ft, L_f), the maximum likelihood
line has the normal vector v that makes v'Ev / v'Sv largest: Deming's line for uncorrelated errors,
York's (1968) for correlated ones. Closed form, one generalised eigenvector.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, eigh
from scipy.special import stdtrit

from service.laws.measured import Measured
from service.laws.quantities import Floats, TooFewPoints

MIN_RUNS = 3


@dataclass(frozen=True)
class Line:
    """L_f = -c_f_ft * L_ft + s_f_ft. The interval comes from leaving out runs: null below 3 of
    them, and where one run alone tells the line."""

    c_f_ft: float
    s_f_ft: float
    c_f_ft_ci95: tuple[float, float] | None


@dataclass(frozen=True)
class BothErrors:
    """The line by least squares, and with errors in both variables."""

    least_squares: Line
    errors_in_both: Line
    attenuation: float | None
    """Least-squares slope over the other; below 1 where noise in L_ft flattens the line, null
    where that is level."""
    ft_loss_sd: float
    """Error of L_ft, nats."""
    forgetting_sd: float
    error_correlation: float
    """Of the two errors: a seed that ends lower in L_ft often ends higher in L_f."""
    reliability: float
    """Share of the variance of L_ft that is not its error."""
    source: Literal["seeds", "residuals"]
    """Errors between seeds at equal (P, N), or about the joint laws of L_f and of L_ft."""


def both_errors(
    known: Measured, error: Floats, source: Literal["seeds", "residuals"]
) -> BothErrors:
    """error: covariance (2, 2) of the errors of (L_ft, L_f). Raises TooFewPoints."""
    plain, full = _line(known, None), _line(known, error)
    sd = np.sqrt(np.diag(error))
    return BothErrors(
        least_squares=_with_interval(plain, _without_each_run(known, None)),
        errors_in_both=_with_interval(full, _without_each_run(known, error)),
        attenuation=plain[0] / full[0] if full[0] else None,
        ft_loss_sd=float(sd[0]),
        forgetting_sd=float(sd[1]),
        error_correlation=float(error[0, 1] / (sd[0] * sd[1])) if sd.all() else 0.0,
        reliability=1.0 - float(error[0, 0] / _moments(known)[1][0, 0]),
        source=source,
    )


def _moments(known: Measured) -> tuple[Floats, Floats]:
    """Mean (2,) and covariance (2, 2) of (L_ft, L_f), weighted as in a fit."""
    columns = np.array([known.ft_loss, known.value])
    mean = np.average(columns, axis=1, weights=known.weight)
    off = columns - mean[:, None]
    return mean, np.asarray((known.weight * off) @ off.T / len(known.value))


def _line(known: Measured, error: Floats | None) -> tuple[float, float]:
    """c_f_ft and s_f_ft; least squares where `error` is null. Raises TooFewPoints."""
    mean, spread = _moments(known)
    if spread[0, 0] <= 1e-18 or spread[1, 1] <= 1e-18:
        raise TooFewPoints("L_ft or forgetting does not vary: no line", axis="ft_loss")
    slope = spread[0, 1] / spread[0, 0]
    if error is not None:
        size = np.sqrt(np.diag(spread))
        try:
            _, vectors = eigh(error / np.outer(size, size), spread / np.outer(size, size))
        except LinAlgError:  # the points lie on one line exactly, and both lines are that
            return -float(slope), float(mean[1] - slope * mean[0])
        normal = vectors[:, -1] / size
        if abs(normal[1]) < 1e-12 * abs(normal[0]):
            raise TooFewPoints("the line with errors in both losses is upright", axis="ft_loss")
        slope = -normal[0] / normal[1]
    return -float(slope), float(mean[1] - slope * mean[0])


def _without_each_run(known: Measured, error: Floats | None) -> list[tuple[float, float]]:
    """The line without each run in turn; none where some run cannot be spared."""
    if len(known.runs) < MIN_RUNS:
        return []
    try:
        return [_line(known.part(known.run != run), error) for run in known.runs]
    except TooFewPoints:
        return []


def _with_interval(line: tuple[float, float], again: list[tuple[float, float]]) -> Line:
    """The interval is the jackknife's by runs, with Student's t."""
    interval = None
    if again:
        sd = float(np.std([slope for slope, _ in again])) * np.sqrt(len(again) - 1.0)
        half = float(stdtrit(len(again) - 1, 0.975) * sd)
        interval = (line[0] - half, line[0] + half)
    return Line(c_f_ft=line[0], s_f_ft=line[1], c_f_ft_ci95=interval)
