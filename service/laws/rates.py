"""Which exposure carries the learning rate: every candidate predicts each rate it has not seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.laws import curve
from service.laws.contenders import contenders
from service.laws.exposure import Exposure, Scale, rates_of
from service.laws.law import LawFit
from service.laws.measured import columns
from service.laws.quantities import Floats, LawError, Point, Target, TooFewPoints
from service.laws.rate_power import RatePower, fit_rate_power

CHOICES: tuple[Exposure, ...] = ("cumulated_rate", "rate_power", "delta_norm")
"""Ties go to the earlier: ||dW|| is known only after the run."""
RIVAL: Exposure = "steps"
"""The law that ignores the rate: shown for comparison, never chosen."""
TIE = 1.05
"""A candidate must beat an earlier one by this factor in root mean squared error."""
EXACT_NATS = 1e-6
"""Errors below this are rounding, and tell nothing."""
MIN_RATES_HELD_OUT = 3
SIMPLER = ("last_value", "log_linear", "quadratic", "linear")
"""What a law across rates must beat, each told the cumulated rate where it asks for a step."""

Fit = Callable[[Sequence[Point]], LawFit]
"""Fits the joint law to restated points."""


@dataclass(frozen=True)
class Candidate:
    """One exposure, fitted to all points, and how well it predicts rates it has not seen."""

    exposure: Exposure
    gamma: float | None
    gamma_ci95: tuple[float, float] | None
    rmse: float
    """In-sample, nats per token."""
    aicc: float
    """Of independent Gaussian points; differences between candidates are what counts."""
    held_out_rmse: float | None
    """Over all points, each predicted by the law of the other rates; null below 3 rates."""
    held_out_by_rate: tuple[float, ...]
    """The same per learning rate, ascending; empty below 3 rates."""

    def to_json(self) -> dict[str, Any]:
        interval = None if self.gamma_ci95 is None else list(self.gamma_ci95)
        return {
            "exposure": self.exposure,
            "gamma": self.gamma,
            "gamma_ci95": interval,
            "rmse": self.rmse,
            "aicc": self.aicc,
            "held_out_rmse": self.held_out_rmse,
            "held_out_by_rate": list(self.held_out_by_rate),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Candidate":
        interval = body["gamma_ci95"]
        gamma, held_out = body["gamma"], body["held_out_rmse"]
        return cls(
            exposure=body["exposure"],
            gamma=None if gamma is None else float(gamma),
            gamma_ci95=None if interval is None else (float(interval[0]), float(interval[1])),
            rmse=float(body["rmse"]),
            aicc=float(body["aicc"]),
            held_out_rmse=None if held_out is None else float(held_out),
            held_out_by_rate=tuple(float(error) for error in body["held_out_by_rate"]),
        )


@dataclass(frozen=True)
class Simpler:
    """A simpler predictor of a rate that it has not seen."""

    name: str
    title: str
    """What it is called in a sentence."""
    held_out_rmse: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "held_out_rmse": self.held_out_rmse}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Simpler":
        return cls(str(body["name"]), str(body["title"]), float(body["held_out_rmse"]))


@dataclass(frozen=True)
class Fitted:
    """One candidate's law."""

    scale: Scale
    law: LawFit
    power: RatePower | None

    @property
    def gamma_ci95(self) -> tuple[float, float] | None:
        if self.power is None or self.power.error is None or self.scale.gamma is None:
            return None
        return self.power.error.ci95(self.scale.gamma, self.law)


def fitted(
    points: Sequence[Point], metric: Target, *, exposures: Sequence[Exposure], fit: Fit
) -> dict[Exposure, Fitted]:
    """The law of these points by each exposure; `steps` and `cumulated_rate` are always made."""
    found: dict[Exposure, Fitted] = {}
    fixed: dict[Exposure, float | None] = {RIVAL: 0.0, "cumulated_rate": 1.0, "delta_norm": None}
    for exposure, gamma in fixed.items():
        if exposure == "delta_norm" and exposure not in exposures:
            continue
        scale = Scale.of(points, exposure, gamma=gamma)
        found[exposure] = Fitted(scale, fit(scale.restate(points)), None)
    if "rate_power" in exposures:
        starts = [(found[name].scale, found[name].law) for name in (RIVAL, "cumulated_rate")]
        power = fit_rate_power(points, metric, starts, lambda scale: fit(scale.restate(points)))
        found["rate_power"] = Fitted(power.scale, power.law, power)
    return found


def compare(
    points: Sequence[Point],
    metric: Target,
    whole: Mapping[Exposure, Fitted],
    *,
    fit: Fit,
) -> tuple[Candidate, ...]:
    """Every exposure's errors, in sample and at rates left out one by one.

    Where the rates that are left make too few points for the law, nothing is held out.
    """
    held_out: dict[Exposure, list[Floats]] = {}
    if len(rates_of(points)) >= MIN_RATES_HELD_OUT:
        try:
            held_out = _held_out(points, metric, tuple(whole), fit=fit)
        except TooFewPoints:
            held_out = {}
    candidates = []
    for exposure in (*CHOICES, RIVAL):
        if exposure not in whole:
            continue
        one = whole[exposure]
        squares = _errors(one, points, metric) ** 2
        n, k = len(points), 8 if exposure == "rate_power" else 7
        spread = float(np.ptp([point.value(metric) for point in points]))
        mean = max(float(squares.mean()), 1e-16 * spread**2)
        errors = held_out.get(exposure, [])
        candidates.append(
            Candidate(
                exposure=exposure,
                gamma=one.scale.gamma,
                gamma_ci95=one.gamma_ci95,
                rmse=math.sqrt(float(squares.mean())),
                aicc=n * math.log(mean) + 2 * k + 2 * k * (k + 1) / max(1, n - k - 1),
                held_out_rmse=_rms(np.concatenate(errors)) if errors else None,
                held_out_by_rate=tuple(_rms(error) for error in errors),
            )
        )
    return tuple(candidates)


def simpler(points: Sequence[Point], metric: Target) -> tuple[Simpler, ...]:
    """Errors of the law's rivals at rates left out one by one, least first; none below 3 rates.

    A rival that some rate leaves too few points for is left out.
    """
    rates = rates_of(points)
    if len(rates) < MIN_RATES_HELD_OUT:
        return ()
    found = []
    for rival in (one for one in contenders(metric) if one.name in SIMPLER):
        errors = []
        try:
            for rate in rates:
                seen = [point for point in points if point.learning_rate != rate]
                scale = Scale.of(seen, "cumulated_rate", gamma=1.0)
                unseen = [point for point in points if point.learning_rate == rate]
                asked = columns(scale.restate(unseen), metric)
                errors.append(asked.value - rival.fit(columns(scale.restate(seen), metric))(asked))
        except LawError:
            continue
        title = rival.title.replace("ln N", "ln X")
        found.append(Simpler(rival.name, title, _rms(np.concatenate(errors))))
    return tuple(sorted(found, key=lambda one: one.held_out_rmse))


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The candidate that predicts unseen rates best, or else the least AICc; and why."""
    offered = [one for one in candidates if one.exposure != RIVAL]
    errors = {one.exposure: one.held_out_rmse for one in offered}
    if any(error is None for error in errors.values()):
        best = min(offered, key=lambda one: one.aicc)
        second = min((one.aicc for one in offered if one is not best), default=math.inf)
        return best, (
            f"{best.exposure} has the least AICc, by {second - best.aicc:.3g}: in-sample, because "
            "too few rates or points are left where one rate is left out"
        )
    least = min(error for error in errors.values() if error is not None)
    bar = max(TIE * least, EXACT_NATS)
    best = next(one for one in offered if (one.held_out_rmse or 0.0) <= bar)
    shown = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    return best, f"{best.exposure} predicts learning rates it has not seen to within: {shown} nats"


def _held_out(
    points: Sequence[Point], metric: Target, exposures: Sequence[Exposure], *, fit: Fit
) -> dict[Exposure, list[Floats]]:
    """Errors of each exposure at every rate, by the law of the other rates."""
    errors: dict[Exposure, list[Floats]] = {exposure: [] for exposure in exposures}
    for rate in rates_of(points):
        seen = [point for point in points if point.learning_rate != rate]
        unseen = [point for point in points if point.learning_rate == rate]
        for exposure, one in fitted(seen, metric, exposures=exposures, fit=fit).items():
            errors[exposure].append(_errors(one, unseen, metric))
    return errors


def _errors(one: Fitted, points: Sequence[Point], metric: Target) -> Floats:
    """Measured minus predicted: (k,)."""
    params = np.array([float(point.trainable_params) for point in points])
    value = np.array([point.value(metric) for point in points], dtype=np.float64)
    fitted_value = curve.evaluate(np.array(one.law.values), params, one.scale.units(points))
    return np.asarray(value - fitted_value)


def _rms(errors: Floats) -> float:
    return math.sqrt(float((errors**2).mean()))
