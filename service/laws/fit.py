"""Fitting a law to points. Deterministic, and blind to the order in which the points come."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from service.laws import intervals, joint, linear, robust
from service.laws.clusters import Clusters
from service.laws.law import LawFit, Residuals
from service.laws.minimum import Minimum
from service.laws.quantities import (
    FORMS,
    Form,
    LawError,
    Point,
    Sample,
    Target,
    TooFewPoints,
    sample,
)
from service.laws.scatter import scatter

Loss = Literal["soft_l1", "squares"]

MIN_POINTS: dict[Form, int] = {"linear": 3, "joint": 8}
MIN_DISTINCT = 3
"""Values of trainable_params, and of step, that the joint law needs."""


def fit(
    points: Sequence[Point],
    form: Form = "joint",
    *,
    metric: Target = "ce_soft",
    loss: Loss = "soft_l1",
    burn_in: int | None = None,
    n_starts: int = 64,
    seed: int = 17,
) -> LawFit:
    """The law of one recipe's points; runs of equal length weigh the same, point by point.

    burn_in: points with `step < burn_in` are left out, 0 keeps all; by default those below a
    fifth of their own run's last step (the paper left out the first 50 of 260 steps).
    `n_starts` and `seed` place the starts of the joint law's search.

    Raises BadPoints for a value that cannot be true, TooFewPoints for too little to fit.
    """
    columns, found = solve(
        points, form, metric=metric, loss=loss, burn_in=burn_in, n_starts=n_starts, seed=seed
    )
    noise = scatter(columns, found.jacobian, found.residuals)
    clusters = Clusters.of(
        columns,
        found.jacobian,
        robust.pseudo_residuals(
            found.residuals, columns.weight, found.robust_scale or float("inf")
        ),
    )
    coefficients = intervals.coefficients(form, found, clusters, columns, noise_sd=noise.sd)
    about_mean = columns.value - np.average(columns.value, weights=columns.weight)
    squares = float(columns.weight @ found.residuals**2)
    return LawFit(
        form=form,
        metric=metric,
        coefficients=coefficients,
        r2=1.0 - squares / float(columns.weight @ about_mean**2),
        rmse=float(np.sqrt(squares / columns.n_points)),
        n_points=columns.n_points,
        n_runs=len(columns.runs),
        params_per_rank=columns.params_per_rank,
        domain=columns.domain,
        condition_number=found.condition_number,
        warnings=_warnings(
            columns, form, metric, found, [n for n, c in coefficients.items() if not c.identifiable]
        ),
        loss=loss,
        robust_scale=found.robust_scale,
        cost=found.cost,
        noise=noise,
        centre=found.centre,
        clusters=clusters if len(columns.runs) >= intervals.MIN_RUNS[form] else None,
        residuals=Residuals(
            run=tuple(columns.runs[index] for index in columns.run),
            trainable_params=tuple(int(x) for x in columns.params),
            step=tuple(int(x) for x in columns.step),
            value=tuple(float(x) for x in found.residuals),
        ),
        burn_in=burn_in,
        n_left_out=columns.n_left_out,
    )


def solve(
    points: Sequence[Point],
    form: Form,
    *,
    metric: Target,
    loss: Loss,
    burn_in: int | None,
    n_starts: int,
    seed: int,
) -> tuple[Sample, Minimum]:
    """The coefficients alone. What `fit` adds about errors costs several times as much.

    Raises as `fit`.
    """
    if form not in FORMS or loss not in ("soft_l1", "squares"):
        raise LawError(f"no law of form {form!r} with loss {loss!r}")
    columns = sample(points, metric, burn_in=burn_in)
    _enough(columns, form, metric)
    robust_loss = loss == "soft_l1"
    if form == "linear":
        return columns, linear.minimise(columns, robust_loss=robust_loss)
    return columns, joint.minimise(columns, robust_loss=robust_loss, n_starts=n_starts, seed=seed)


def _enough(points: Sample, form: Form, metric: Target) -> None:
    """Raise TooFewPoints with the numbers that decide."""
    n_params, n_steps = len(np.unique(points.params)), len(np.unique(points.step))
    if form == "linear":
        need, have = "3 points", f"{points.n_points} points"
    else:
        need = f"8 points, {MIN_DISTINCT} values of trainable_params and {MIN_DISTINCT} of step"
        have = f"{points.n_points} points, {n_params} and {n_steps}"
    message = f"the {form} law needs {need}; there are {have}"
    if points.n_points < MIN_POINTS[form]:
        raise TooFewPoints(message, axis="points")
    if form == "joint" and n_params < MIN_DISTINCT:
        raise TooFewPoints(message, axis="trainable_params")
    if form == "joint" and n_steps < MIN_DISTINCT:
        raise TooFewPoints(message, axis="step")
    if form == "linear":
        _varied(points.ft_loss, axis="ft_loss", form=form)
    _varied(points.value, axis=metric, form=form)


def _varied(values: np.typing.NDArray[np.float64], *, axis: str, form: Form) -> None:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
        raise TooFewPoints(
            f"no spread in {axis}: all {len(values)} points are {low:.6g}; "
            f"the {form} law needs values that differ",
            axis=axis,
        )


def _warnings(
    points: Sample, form: Form, metric: Target, found: Minimum, vague: list[str]
) -> tuple[str, ...]:
    """What a reader of the law must know; each line begins with a stable word."""
    lines = []
    n_runs, need = len(points.runs), intervals.MIN_RUNS[form]
    if n_runs < need:
        lines.append(f"few_runs: {n_runs} of {need} runs; no intervals")
    n_coefficients = found.jacobian.shape[1]
    if points.n_points < 2 * n_coefficients:
        lines.append(
            f"few_points: {points.n_points} points for {n_coefficients} coefficients; "
            "R2 flatters the law"
        )
    if points.n_repeated:
        lines.append(
            f"repeated: {points.n_repeated} points equal another run's to the last digit; a run "
            "that is counted twice makes intervals too narrow"
        )
    if form == "joint":
        together = abs(float(np.corrcoef(np.log(points.params), np.log(points.step))[0, 1]))
        if together > 0.95:
            lines.append(
                f"collinear: trainable_params and step move together (|r| = {together:.3f}); "
                "their effects cannot be told apart"
            )
        # Forgetting should grow with size and length, and the fine-tuning loss should fall.
        if found.values[-1] > 0 and metric != "ft_loss":
            lines.append("falling: forgetting falls as trainable_params and step grow")
        if found.values[-1] < 0 and metric == "ft_loss":
            lines.append("rising: the fine-tuning loss rises as trainable_params and step grow")
    elif found.values[0] <= 0:
        lines.append("rising: forgetting rises with ft_loss")
    if found.at_bound:
        lines.append(f"at_bound: {', '.join(found.at_bound)} ended on a bound of the search")
    if vague:
        lines.append(
            f"not_identifiable: {', '.join(vague)}; read the predictions, not these numbers"
        )
    return tuple(lines)
