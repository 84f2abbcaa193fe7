"""What a law expects, with the interval of the curve and the interval of a new run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from service.laws import curve, intervals
from service.laws.law import LawFit
from service.laws.quantities import MAX_COUNT, MAX_NATS, BadQuery, Floats, Form, Target

FAR = 1.0
"""Distance, in widths of the domain, from which a prediction is called far."""
ONE_RUN = "few_runs: one run alone decides what is expected here; no intervals"


@dataclass(frozen=True)
class Prediction:
    """Forgetting that the law expects at one place, nats per token."""

    metric: Target
    value: float
    ci95: tuple[float, float] | None
    """Where the curve lies; null where the runs are too few to tell."""
    pi95: tuple[float, float] | None
    """Where a point of a new run would fall; never narrower than `ci95`."""
    extrapolating: bool
    """Outside the box that the fitted points span."""
    distances: dict[str, float] = field(default_factory=dict)
    """Per axis, how far outside in widths of the domain (of its logarithm for trainable_params
    and step); 0 inside."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values only: intervals and warnings as lists, a distance without end as null."""
        return {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "pi95": None if self.pi95 is None else list(self.pi95),
            "extrapolating": self.extrapolating,
            "distances": {
                axis: away if math.isfinite(away) else None for axis, away in self.distances.items()
            },
            "warnings": list(self.warnings),
        }


def predict(
    law: LawFit,
    *,
    trainable_params: float | None = None,
    rank: int | None = None,
    step: float | None = None,
    ft_loss: float | None = None,
) -> Prediction:
    """Forward prediction. joint: `trainable_params` or `rank`, with `step`. linear: `ft_loss`.

    Raises BadQuery where an argument is missing, unfit for the form, or beyond reason.
    """
    if law.form == "linear":
        _refuse(law, trainable_params=trainable_params, rank=rank, step=step)
        if ft_loss is None or not 0 <= ft_loss <= MAX_NATS:
            raise BadQuery(
                f"the linear law needs ft_loss between 0 and {MAX_NATS:g} nats", field="ft_loss"
            )
        distances = {"ft_loss": outside(ft_loss, law.domain.ft_loss, log=False)}
        value = float(expected(law, ft_loss=ft_loss))
        gradient = np.array([[ft_loss - law.centre[0], 1.0]])
    else:
        _refuse(law, ft_loss=ft_loss)
        params = _params(law, trainable_params, rank)
        if step is None or not 1 <= step <= MAX_COUNT:
            raise BadQuery(f"the joint law needs step from 1 to {MAX_COUNT:.0e}", field="step")
        distances = {
            "trainable_params": outside(params, law.domain.trainable_params),
            "step": outside(step, law.domain.step),
        }
        value = float(expected(law, trainable_params=params, step=step))
        gradient = _gradient(law, params, step)
    ci95, pi95 = _intervals(law, value, gradient)
    return Prediction(
        metric=law.metric,
        value=value,
        ci95=ci95,
        pi95=pi95,
        extrapolating=any(distance > 0 for distance in distances.values()),
        distances=distances,
        warnings=_warnings(law, value, distances, told=ci95 is not None),
    )


def expected(
    law: LawFit,
    *,
    trainable_params: npt.ArrayLike | None = None,
    step: npt.ArrayLike | None = None,
    ft_loss: npt.ArrayLike | None = None,
) -> Floats:
    """What `predict` expects at many places at once, without intervals and unchecked."""
    return values_at(
        law.form,
        np.array(law.values),
        trainable_params=trainable_params,
        step=step,
        ft_loss=ft_loss,
    )


def values_at(
    form: Form,
    values: Floats,
    *,
    trainable_params: npt.ArrayLike | None = None,
    step: npt.ArrayLike | None = None,
    ft_loss: npt.ArrayLike | None = None,
) -> Floats:
    """A form with these `LawFit.values` at many places at once."""
    if form == "linear":
        if ft_loss is None:
            raise BadQuery("the linear law needs ft_loss", field="ft_loss")
        return np.asarray(values[1] - values[0] * np.asarray(ft_loss, dtype=np.float64))
    if trainable_params is None or step is None:
        raise BadQuery("the joint law needs trainable_params and step", field="step")
    return curve.evaluate(values, trainable_params, step)


def _gradient(law: LawFit, trainable_params: float, step: float) -> Floats:
    """Derivative of the joint law at one place by its centred coefficients: (1, 6)."""
    plane = curve.Plane.at(trainable_params, step, centre=(law.centre[0], law.centre[1]))
    shape, _, slope = curve.centred(np.array(law.values), plane)
    return curve.gradient(shape, slope, plane)


def _intervals(
    law: LawFit, value: float, gradient: Floats
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Of the curve and of a new run; null where the runs do not tell them."""
    if law.clusters is None:
        return None, None
    band = intervals.band(law.clusters, law.noise, gradient)
    curve_half, run_half = float(band.curve[0]), float(band.new_run[0])
    if not math.isfinite(curve_half + run_half):
        return None, None
    return (value - curve_half, value + curve_half), (value - run_half, value + run_half)


def _refuse(law: LawFit, **unfit: float | None) -> None:
    for name, value in unfit.items():
        if value is not None:
            raise BadQuery(f"the {law.form} law takes no {name}", field=name)


def _params(law: LawFit, trainable_params: float | None, rank: int | None) -> float:
    """Number of fine-tuned parameters from either way of saying it."""
    if rank is not None:
        if law.params_per_rank is None:
            raise BadQuery(
                "the law's points do not agree on parameters per rank; give trainable_params",
                field="rank",
            )
        implied = law.params_per_rank * rank
        if trainable_params is not None and abs(trainable_params - implied) > 0.5:
            raise BadQuery(
                f"rank {rank} means {implied:.0f} trainable_params, not {trainable_params}",
                field="rank",
            )
        trainable_params = implied
    if trainable_params is None:
        raise BadQuery("the joint law needs rank or trainable_params", field="trainable_params")
    if not 1 <= trainable_params <= MAX_COUNT:
        raise BadQuery(
            f"trainable_params must be from 1 to {MAX_COUNT:.0e}", field="trainable_params"
        )
    return float(trainable_params)


def outside(value: float, span: tuple[float, float], *, log: bool = True) -> float:
    """Distance from the span in widths of it, or of its logarithm; infinite where it has none."""
    low, high = float(span[0]), float(span[1])
    # Parameters per rank are a quotient: let rounding not push an edge outside.
    if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        return 0.0
    if low >= high or (log and low <= 0):
        return math.inf
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return max(low - value, value - high) / (high - low)


def beyond(distances: Mapping[str, float], spans: Mapping[str, tuple[float, float]]) -> list[str]:
    """What to say of a place outside: by how much on each axis, and what no interval knows.

    An interval knows how surely the points tell the law's numbers, not whether what is measured
    still follows the law out there.
    """
    lines = [
        f"extrapolating: {axis} is {distances[axis]:.2g} widths outside {low:g} to {high:g}"
        + (", far" if distances[axis] > FAR else "")
        for axis, (low, high) in spans.items()
        if distances[axis] > 0
    ]
    if any(distance > 0 for distance in distances.values()):
        lines.append(
            "beyond_form: the intervals hold only if the law's form does outside the points, and "
            "nothing measured tells whether it does"
        )
    return lines


def _warnings(
    law: LawFit, value: float, distances: dict[str, float], *, told: bool
) -> tuple[str, ...]:
    lines = beyond(distances, {axis: getattr(law.domain, axis) for axis in distances})
    if law.clusters is None:
        need = intervals.MIN_RUNS[law.form]
        lines.append(f"few_runs: {law.n_runs} of {need} runs; no intervals")
    elif not told:
        lines.append(ONE_RUN)
    # Neither KL nor a loss is negative, or far above a uniform guess; a law does not know that.
    if not 0 <= value <= MAX_NATS:
        lines.append(f"impossible: {law.metric} lies between 0 and {MAX_NATS:g} nats")
    return tuple(lines)
