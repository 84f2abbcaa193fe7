"""What a law must beat: simple predictors of forgetting, each fitted by `fit(known) -> predict`.

Coefficients are least squares with the weights of a fit, without a ridge. With
p = ln(P/P0) and n = ln(N/N0) about the means of the fitted points, so that units drop out.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from service.laws.measured import Measured, Places
from service.laws.quantities import Floats, TooFewPoints

N_TIMES = 61
"""Time constants, evenly apart in logarithm, that the saturating curve is tried with."""


class Predictor(Protocol):
    """Forgetting at k places: (k,), nats per token."""

    def __call__(self, places: Places, /) -> Floats: ...


Fitter = Callable[[Measured], Predictor]
"""Raises LawError where the points cannot tell what is fitted."""


def mean(known: Measured) -> Predictor:
    """L_f = the mean of the fitted points, whatever P and N. Who cannot beat it knows nothing."""
    level = float(np.average(known.value, weights=known.weight))
    return lambda places: np.full(len(places.params), level)


def last_value(known: Measured) -> Predictor:
    """Last value carried over.

    A run that has fitted points keeps the value of the last of them. Any other takes the mean of
    the fitted points that are nearest: nearest in ln P first, then nearest in ln N; points at
    equal distance are averaged.
    """

    def predict(places: Places) -> Floats:
        rows = zip(places.run, places.log_params, places.log_step, strict=True)
        return np.array([_carried(known, str(run), p, n) for run, p, n in rows])

    return predict


def log_linear(known: Measured) -> Predictor:
    """L_f = a + b p + c n: three coefficients, a power law of exponents near zero."""
    return _least_squares(known, lambda p, n: [np.ones_like(p), p, n])


def quadratic(known: Measured) -> Predictor:
    """L_f = a + b p + c n + d p^2 + e p n + f n^2: six coefficients, as many as the joint law."""
    return _least_squares(known, lambda p, n: [np.ones_like(p), p, n, p**2, p * n, n**2])


def saturating(known: Measured) -> Predictor:
    """L_f = a + b p + (c + d p) e^(-N/t): five coefficients, and flat once N is far above t.

    No power of N saturates like that. t is the best of 61 values from a third of the first step
    to three times the last one.
    """
    low, high = float(known.step.min()) / 3.0, float(known.step.max()) * 3.0
    best, least = None, np.inf
    for time in np.geomspace(low, high, N_TIMES):
        found = _decaying(known, float(time))
        miss = known.value - found(known)
        squares = float(np.sum(known.weight * miss**2))
        if squares < least:
            best, least = found, squares
    assert best is not None
    return best


def _decaying(known: Measured, time: float) -> Predictor:
    log_n0 = float(known.log_step.mean())

    def design(p: Floats, n: Floats) -> list[Floats]:
        decay = np.exp(-np.exp(n + log_n0) / time)
        return [np.ones_like(p), p, decay, p * decay]

    return _least_squares(known, design)


def _carried(known: Measured, run: str, log_params: float, log_step: float) -> float:
    own = known.run == run
    if own.any():
        return float(known.value[own][np.argmax(known.step[own])])
    near = _nearest(np.abs(known.log_params - log_params))
    nearer = _nearest(np.abs(known.log_step[near] - log_step))
    return float(known.value[near][nearer].mean())


def _nearest(distance: Floats) -> np.typing.NDArray[np.bool_]:
    return np.asarray(distance <= distance.min() + 1e-9)


def _least_squares(known: Measured, design: Callable[[Floats, Floats], list[Floats]]) -> Predictor:
    """Coefficients of the design's columns; raises TooFewPoints where they are not determined."""
    log_p0, log_n0 = float(known.log_params.mean()), float(known.log_step.mean())

    def matrix(places: Places) -> Floats:
        return np.stack(design(places.log_params - log_p0, places.log_step - log_n0), axis=1)

    columns = matrix(known)
    size = np.abs(columns).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    root = np.sqrt(known.weight)
    # About the middle of the values: a constant added to forgetting changes nothing but the level.
    middle = float(known.value.mean())
    found, _, rank, _ = np.linalg.lstsq(
        columns / size * root[:, None], (known.value - middle) * root, rcond=1e-9
    )
    if rank < columns.shape[1]:
        message = (
            f"{len(known.value)} points on {len(np.unique(known.params))} values of "
            f"trainable_params and {len(np.unique(known.step))} of step do not determine "
            f"{columns.shape[1]} coefficients"
        )
        raise TooFewPoints(message, axis="points")
    coefficients = found / size
    return lambda places: np.asarray(matrix(places) @ coefficients + middle)
