"""The joint law across learning rates, form `joint_lr`: an exposure stands where the steps stood.

L_f = sign * (A P^-alpha + B X^-beta)^rho + shift, where X is N * (learning_rate / rate0)^gamma or
the norm of the update, in units (`exposure`). Only for groups that differ in nothing but the rate.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypedDict

from service.laws.across_law import AcrossFit
from service.laws.exposure import Exposure, checked, rates_of
from service.laws.fit import MIN_DISTINCT, fit
from service.laws.law import LawFit
from service.laws.predict import ONE_RUN, Prediction, beyond, outside, predict
from service.laws.quantities import (
    MAX_COUNT,
    BadQuery,
    LawError,
    Point,
    Target,
    TooFewPoints,
    domain_of,
)
from service.laws.rates import (
    CHOICES,
    EXACT_NATS,
    RIVAL,
    TIE,
    Candidate,
    Fitted,
    Simpler,
    choose,
    compare,
    fitted,
    simpler,
)

__all__ = ["AcrossFit", "fit_across", "predict_across", "predict_either"]


class Place(TypedDict):
    """How much is trained, said either way."""

    trainable_params: float | None
    rank: int | None


def fit_across(
    points: Sequence[Point],
    *,
    metric: Target = "ce_soft",
    burn_in: int | None = None,
    exposure: Exposure | None = None,
    n_starts: int = 64,
    seed: int = 17,
) -> AcrossFit:
    """The joint law of groups that differ in nothing but the learning rate.

    Three exposures are tried: the cumulated rate N * lr, N * lr^gamma with gamma searched in
    [-1, 3], and, where every point carries a `delta_norm`, the norm of the update. Each predicts
    every rate from the others (three rates at least; two are judged by AICc, in sample); the least
    error is chosen, the simpler one where they tie. `exposure` asks for one of them instead.
    `burn_in` is in steps, as for `fit`: null leaves out the first fifth of each run.

    Raises BadPoints for a value that cannot be true or is missing, TooFewPoints for fewer than
    two learning rates (axis `learning_rate`) or too little for the joint law.
    """
    if exposure is not None and exposure not in CHOICES:
        raise LawError(f"exposure {exposure!r} is none of {', '.join(CHOICES)}")
    kept = checked(points, metric, burn_in=burn_in)
    n_normed = sum(point.delta_norm is not None and point.delta_norm > 0 for point in kept)
    if exposure == "delta_norm" and n_normed < len(kept):
        missing = len(kept) - n_normed
        raise TooFewPoints(
            f"{missing} of {len(kept)} points carry no delta_norm above 0", axis="delta_norm"
        )
    n_norms = len({point.delta_norm for point in kept})
    if exposure == "delta_norm" and n_norms < MIN_DISTINCT:
        raise TooFewPoints(
            f"{n_norms} values of delta_norm; the joint_lr law needs {MIN_DISTINCT}",
            axis="delta_norm",
        )
    normed = n_normed == len(kept) and n_norms >= MIN_DISTINCT
    offered = [one for one in CHOICES if one != "delta_norm" or normed]

    def fit_restated(restated: Sequence[Point]) -> LawFit:
        return fit(restated, "joint", metric=metric, burn_in=0, n_starts=n_starts, seed=seed)

    whole = fitted(kept, metric, exposures=offered, fit=fit_restated)
    candidates = compare(kept, metric, whole, fit=fit_restated)
    chosen, reason = choose(candidates)
    chosen_by: Literal["held_out", "aicc", "asked"] = (
        "aicc" if chosen.held_out_rmse is None else "held_out"
    )
    if exposure is not None:
        chosen = next(one for one in candidates if one.exposure == exposure)
        reason, chosen_by = f"{exposure} was asked for; else: {reason}", "asked"
    one = whole[chosen.exposure]
    rivals = simpler(kept, metric)
    norms = [point.delta_norm for point in kept if point.delta_norm is not None]
    return AcrossFit(
        scale=one.scale,
        law=one.law,
        gamma_ci95=chosen.gamma_ci95,
        gamma_error=one.power.error if one.power is not None else None,
        rates=rates_of(kept),
        domain=domain_of(kept),
        delta_norm=(min(norms), max(norms)) if n_normed == len(kept) else None,
        candidates=candidates,
        rivals=rivals,
        chosen_by=chosen_by,
        reason=reason,
        burn_in=burn_in,
        warnings=_warnings(one, candidates, chosen, rivals, n_normed=n_normed, n_points=len(kept)),
    )


def _warnings(
    one: Fitted,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    rivals: Sequence[Simpler],
    *,
    n_normed: int,
    n_points: int,
) -> tuple[str, ...]:
    """The joint law's warnings and those of the rate; each line begins with a stable word."""
    lines = list(one.law.warnings)
    if chosen.held_out_rmse is None:
        lines.append("rates_not_held_out: too few learning rates, or points, to leave one rate out")
    else:
        rival = next(c for c in candidates if c.exposure == RIVAL)
        bar = max(TIE * chosen.held_out_rmse, EXACT_NATS)
        if rival.held_out_rmse is not None and rival.held_out_rmse <= bar:
            lines.append(
                f"rate_ignored: a law without the learning rate predicts unseen rates to "
                f"{rival.held_out_rmse:.4f} nats, this one to {chosen.held_out_rmse:.4f}"
            )
        if rivals and TIE * max(rivals[0].held_out_rmse, EXACT_NATS) < chosen.held_out_rmse:
            lines.append(
                f"beaten: {rivals[0].title} predicts unseen rates to "
                f"{rivals[0].held_out_rmse:.4f} nats, this law to {chosen.held_out_rmse:.4f}"
            )
    if one.power is not None and one.power.at_bound:
        lines.append(f"at_bound: gamma ended on a bound of its search, at {one.scale.gamma:.3g}")
    if 0 < n_normed < n_points:
        lines.append(
            f"no_delta_norm: {n_points - n_normed} of {n_points} points carry no delta_norm above "
            "0, so it was not tried"
        )
    return tuple(lines)


def predict_across(
    law: AcrossFit,
    *,
    trainable_params: float | None = None,
    rank: int | None = None,
    step: float | None = None,
    learning_rate: float | None = None,
    delta_norm: float | None = None,
) -> Prediction:
    """Forward prediction: `rank` or `trainable_params`, with `step` and `learning_rate`; under
    ||dW|| as exposure, with `delta_norm` instead of both.

    Where gamma was fitted its error is part of the intervals. `distances` has an axis `exposure`
    besides: the corner of the longest run at the highest rate may be unseen.

    Raises BadQuery where an argument is missing, unfit for the exposure, or beyond reason.
    """
    place: Place = {"trainable_params": trainable_params, "rank": rank}
    axes: dict[str, tuple[float, tuple[float, float]]] = {}
    if law.scale.gamma is None:
        _refuse(step=step, learning_rate=learning_rate)
        norm = _positive("delta_norm", delta_norm)
        asked = predict(law.law, step=_countable(law.scale.unit * norm, "delta_norm"), **place)
        if law.delta_norm is not None:
            axes = {"delta_norm": (norm, law.delta_norm)}
    else:
        _refuse(delta_norm=delta_norm)
        count, rate = _positive("step", step), _positive("learning_rate", learning_rate)
        if not 1 <= count <= MAX_COUNT:
            raise BadQuery(f"step must be from 1 to {MAX_COUNT:.0e}", field="step")
        units = _countable(law.scale.units_per_step(rate) * count, "learning_rate")
        asked = predict(law.law, step=units, **place)
        axes = {
            "step": (count, law.domain.step),
            "learning_rate": (rate, (law.rates[0], law.rates[-1])),
        }
        asked = _with_gamma(asked, law, count, rate, place)
    distances = {"trainable_params": asked.distances["trainable_params"]}
    distances |= {name: outside(value, span) for name, (value, span) in axes.items()}
    if law.scale.gamma is not None:
        distances["exposure"] = asked.distances["step"]
    spans: dict[str, tuple[float, float]] = {"trainable_params": law.domain.trainable_params}
    lines = beyond(distances, spans | {name: span for name, (_, span) in axes.items()})
    if distances.get("exposure", 0.0) > 0:
        lines.append("extrapolating: no run was trained so much, or so little, at any rate")
    # The joint law itself speaks of exposures where it says steps.
    own = ("extrapolating:", "beyond_form:")
    lines += [line for line in asked.warnings if not line.startswith(own)]
    return replace(
        asked,
        extrapolating=any(distance > 0 for distance in distances.values()),
        distances=distances,
        warnings=tuple(lines),
    )


def predict_either(
    law: LawFit | AcrossFit,
    *,
    trainable_params: float | None = None,
    rank: int | None = None,
    step: float,
    learning_rate: float | None = None,
) -> Prediction:
    """`predict` or `predict_across`, whichever the law needs. Raises BadQuery."""
    if isinstance(law, AcrossFit):
        return predict_across(
            law,
            trainable_params=trainable_params,
            rank=rank,
            step=step,
            learning_rate=learning_rate,
        )
    if learning_rate is not None:
        raise BadQuery("the joint law takes no learning_rate", field="learning_rate")
    return predict(law, trainable_params=trainable_params, rank=rank, step=step)


def _with_gamma(
    asked: Prediction, law: AcrossFit, step: float, rate: float, place: Place
) -> Prediction:
    """The prediction with intervals that count gamma's error too, where gamma was fitted."""
    if law.gamma_error is None:
        return asked
    params = place["trainable_params"]
    if params is None:
        params = (law.params_per_rank or 1.0) * (place["rank"] or 1)
    halves = law.gamma_error.band(law.law, law.scale, trainable_params=params, step=step, rate=rate)
    if halves is None:
        return replace(asked, ci95=None, pi95=None, warnings=(*asked.warnings, ONE_RUN))
    curve, run = halves
    return replace(
        asked,
        ci95=(asked.value - curve, asked.value + curve),
        pi95=(asked.value - run, asked.value + run),
    )


def _refuse(**unfit: float | None) -> None:
    for name, value in unfit.items():
        if value is not None:
            raise BadQuery(f"this joint_lr law takes no {name}", field=name)


def _positive(name: str, value: float | None) -> float:
    if value is None or not 0 < value < math.inf:
        raise BadQuery(f"this joint_lr law needs {name} above 0", field=name)
    return float(value)


def _countable(units: float, field: str) -> float:
    if not 1 <= units <= MAX_COUNT:
        raise BadQuery(f"{field} is too far from what was measured", field=field)
    return units
