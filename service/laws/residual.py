"""Did a run forget more than its recipe's law expects? The law is fitted without the whole run."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.laws.fit import fit
from service.laws.law import LawFit
from service.laws.predict import Prediction, predict
from service.laws.quantities import Form, LawError, Metric, Point, Target, TooFewPoints

MIN_OTHER_RUNS = 3
"""Runs beside the judged one; with fewer nobody knows how much runs differ."""
EDGE = 1.959964
"""|z| at the edge of pi95, as of a normal distribution."""
RESOLUTION_NATS = 1e-6
"""A measured KL is not better than this: no interval is taken to be narrower."""


@dataclass(frozen=True)
class Residual:
    """One run's last point against the law of the other runs. Nats per token."""

    form: Form
    metric: Target
    run: str
    step: int
    measured: float
    expected: float
    z: float
    """The residual in halves of pi95, times 1.96: below -1.96 or beyond 1.96 is outside pi95.
    So the curve's error, the spread between runs and the few degrees of freedom are in it."""
    ci95: tuple[float, float] | None
    pi95: tuple[float, float]
    n_runs: int
    """Other runs, which the law was fitted to."""
    extrapolating: bool

    @property
    def residual(self) -> float:
        """Above 0: forgot more than expected."""
        return self.measured - self.expected


def residual(
    points: Sequence[Point], run: str, *, metric: Metric = "kl", form: Form = "linear"
) -> Residual:
    """The last point of `run` against the law of all the others.

    linear judges at the point's fine-tuning loss, joint at its trainable_params and step. Raises
    TooFewPoints (axis `run`: too few other runs), BadPoints, LawError where `run` has no point.
    """
    return compare(fit(others(points, run, metric=metric), form, metric=metric), last(points, run))


def others(points: Sequence[Point], run: str, *, metric: Metric = "kl") -> list[Point]:
    """Measured points of the other runs. Raises TooFewPoints where those are too few."""
    kept = [point for point in points if point.run != run and point.value(metric) is not None]
    n_runs = len({point.run for point in kept})
    if n_runs < MIN_OTHER_RUNS:
        raise TooFewPoints(
            f"a residual needs {MIN_OTHER_RUNS} other runs of the same recipe; there are {n_runs}",
            axis="run",
        )
    return kept


def last(points: Sequence[Point], run: str) -> Point:
    """The point of `run` at its largest step. Raises LawError where it has none."""
    own = [point for point in points if point.run == run]
    if not own:
        raise LawError(f"run {run!r} has no point")
    return max(own, key=lambda point: point.step)


def compare(law: LawFit, point: Point) -> Residual:
    """A point that the law has not seen, against it. Raises TooFewPoints without intervals."""
    measured = point.value(law.metric)
    if measured is None:
        raise LawError(f"{law.metric} of run {point.run!r} at step {point.step} was not measured")
    found = _ask(law, point)
    if found.pi95 is None:
        raise TooFewPoints(
            f"the law of {law.n_runs} other runs has no interval to measure by", axis="run"
        )
    return Residual(
        form=law.form,
        metric=law.metric,
        run=point.run,
        step=point.step,
        measured=measured,
        expected=found.value,
        z=z_score(measured, found.value, found.pi95),
        ci95=found.ci95,
        pi95=found.pi95,
        n_runs=law.n_runs,
        extrapolating=found.extrapolating,
    )


def z_score(measured: float, expected: float, pi95: tuple[float, float]) -> float:
    """`measured - expected` in units of which pi95, on that side, reaches 1.96."""
    low, high = pi95
    half = high - expected if measured >= expected else expected - low
    return EDGE * (measured - expected) / max(half, RESOLUTION_NATS)


def _ask(law: LawFit, point: Point) -> Prediction:
    if law.form == "linear":
        return predict(law, ft_loss=point.ft_loss)
    return predict(law, trainable_params=point.trainable_params, step=point.step)
