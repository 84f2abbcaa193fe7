"""The paper's main claim put to the test: forgetting depends on the fine-tuning loss alone.

Forgetting is regressed on a smooth function of L_ft (a natural cubic spline), then ln P, ln N or
the log of the learning rate is added, one at a time. Under the claim none of them helps. Points of
one run are not independent, so the test is the wild cluster bootstrap-t with the null imposed
(Cameron, Gelbach & Miller 2008): the signs of whole runs are drawn, Webb's six weights below
MANY_RUNS runs and Rademacher's two above.

Noise in L_ft would refute the claim by itself, because P and N then know more of the true loss
than the measured one does. So L_ft is smoothed first: each run keeps its mean, and all share a
parabola in ln N whose slope and bend move with ln P. What that takes away is uncorrelated with ln P
and ln N, so it costs no more than precision where the jitter was real.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.laws.measured import Measured
from service.laws.quantities import Floats, LawError, TooFewPoints

Variable = Literal["trainable_params", "step", "learning_rate"]
VARIABLES: tuple[Variable, ...] = ("trainable_params", "step", "learning_rate")
MIN_RUNS = 5
"""Below this the runs' signs cannot be drawn in enough ways."""
MANY_RUNS = 13
N_BOOTSTRAP = 1999
LEVEL = 0.05
WEBB = np.sqrt(np.array([0.5, 1.0, 1.5]))
"""Sizes of six factors of mean 0 and variance 1, each with either sign and equally likely."""
LEAST_OWN = 1e-6
"""Share of a variable's variance that L_ft must leave unexplained for it to be tested."""


@dataclass(frozen=True)
class Effect:
    """What one variable adds, given L_ft."""

    variable: Variable
    p: float
    """Two-sided, of the null that it adds nothing."""
    p_holm: float
    """The same when all variables that were tested are counted (Holm)."""
    nats: float
    """Change of forgetting from the variable's least to its largest value at equal L_ft."""
    nats_ci95: tuple[float, float]
    sentence: str


@dataclass(frozen=True)
class Sufficiency:
    """`sufficient`: no variable helps at the 5 % level, Holm's correction made."""

    sufficient: bool
    effects: tuple[Effect, ...]
    untested: dict[str, str]
    """Why a variable was not tested."""
    n_runs: int
    n_bootstrap: int
    sentence: str


def sufficiency(known: Measured, *, seed: int = 17, n_bootstrap: int = N_BOOTSTRAP) -> Sufficiency:
    """Does anything but L_ft predict forgetting? Raises TooFewPoints below 5 runs."""
    if known.metric == "ft_loss":
        raise LawError("L_ft tells itself: no test")
    n_runs = len(known.runs)
    if n_runs < MIN_RUNS:
        raise TooFewPoints(f"{n_runs} runs; the sufficiency test needs {MIN_RUNS}", axis="points")
    smooth = _spline(smoothed(known))
    signs = _signs(n_runs, n_bootstrap, seed=seed)
    tested: list[tuple[Variable, _Added]] = []
    untested: dict[str, str] = {}
    for variable in VARIABLES:
        try:
            column = _logarithm(known, variable)
            tested.append((variable, _add(known, smooth, column, signs)))
        except LawError as error:
            untested[variable] = error.message
    if not tested:
        raise TooFewPoints("; ".join(untested.values()), axis="points")
    p_holm = holm([added.p for _, added in tested])
    effects = tuple(
        _effect(variable, added, p) for (variable, added), p in zip(tested, p_holm, strict=True)
    )
    matter = [effect for effect in effects if effect.p_holm < LEVEL]
    if matter:
        sentence = "L_ft alone does not tell forgetting: " + " ".join(e.sentence for e in matter)
    else:
        names = ", ".join(f"{e.variable} (p = {e.p_holm:.2g})" for e in effects)
        sentence = f"Given L_ft, nothing more is seen to predict forgetting: {names}."
    return Sufficiency(
        sufficient=not matter,
        effects=effects,
        untested=untested,
        n_runs=n_runs,
        n_bootstrap=n_bootstrap,
        sentence=sentence,
    )


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def smoothed(known: Measured) -> Floats:
    """L_ft without the jitter of single checkpoints: (k,).

    Raises TooFewPoints where it is constant.
    """
    if np.ptp(known.ft_loss) <= 1e-9 * known.ft_loss.max():
        raise TooFewPoints("ft_loss does not vary", axis="ft_loss")
    p = known.log_params - known.log_params.mean()
    n = known.log_step - known.log_step.mean()
    one_hot = np.equal.outer(known.run_index, np.arange(len(known.runs))).astype(np.float64)
    design = np.column_stack([one_hot, n, n**2, p * n, p * n**2])
    middle = known.ft_loss.mean()
    found = np.linalg.lstsq(design, known.ft_loss - middle, rcond=1e-9)[0]
    return np.asarray(design @ found + middle)


@dataclass(frozen=True)
class _Added:
    """One variable added to the smooth function of L_ft."""

    p: float
    slope: float
    half: float
    """Half the 95 % interval of the slope."""
    width: float
    """Of the variable, in logarithms."""


def _add(known: Measured, smooth: Floats, column: Floats, signs: Floats) -> _Added:
    """smooth: (k, q). column: (k,), the variable's logarithm. signs: (n_bootstrap, runs)."""
    root = np.sqrt(known.weight)
    basis = np.linalg.qr(smooth * root[:, None])[0]

    def beyond(columns: Floats) -> Floats:
        return np.asarray(columns - basis @ (basis.T @ columns))

    own = beyond(root * (column - column.mean()))
    left = beyond(root * (known.value - known.value.mean()))
    size = float(own @ own)
    if size <= LEAST_OWN * float(np.sum(known.weight * (column - column.mean()) ** 2)):
        raise TooFewPoints("L_ft tells it, so the two cannot be told apart", axis="ft_loss")
    one_hot = np.equal.outer(np.arange(len(known.runs)), known.run_index).astype(np.float64)

    def score(residuals: Floats) -> Floats:
        """Per run (rows): own' residuals, what the cluster-robust standard error is made of."""
        return np.asarray((one_hot * own) @ residuals)

    slope = float(own @ left) / size
    error = float(np.linalg.norm(score(left - own * slope))) / size
    if error <= 1e-12 * abs(slope) or error == 0.0:
        raise TooFewPoints("the points leave no residuals to test against", axis="points")
    # Everything is linear in the runs' signs, so one matrix per statistic serves every draw.
    by_run = left[:, None] * one_hot.T
    slopes = own @ by_run / size
    again = beyond(by_run) - np.outer(own, slopes)
    drawn = signs @ slopes
    errors = np.linalg.norm(signs @ score(again).T, axis=1) / size
    statistic = np.abs(drawn) / np.maximum(errors, 1e-300)
    extreme = int(np.sum(statistic >= abs(slope) / error * (1 - 1e-12)))
    return _Added(
        p=(1 + extreme) / (1 + len(signs)),
        slope=slope,
        half=error * float(np.quantile(statistic, 0.95)),
        width=float(np.ptp(column)),
    )


def _effect(variable: Variable, added: _Added, p_holm: float) -> Effect:
    nats = added.slope * added.width
    half = added.half * added.width
    sentence = (
        f"at equal L_ft, forgetting changes by {nats:+.3g} nats "
        f"({nats - half:+.3g} to {nats + half:+.3g}) from the least to the largest {variable}, "
        f"p = {added.p:.2g}."
    )
    return Effect(variable, added.p, p_holm, nats, (nats - half, nats + half), sentence)


def _logarithm(known: Measured, variable: Variable) -> Floats:
    values = [getattr(point, variable) for point in known.points]
    if any(value is None or value <= 0 for value in values):
        raise TooFewPoints(f"{variable} is not known of every point", axis=variable)
    if len(set(values)) < 2:
        raise TooFewPoints(f"{variable} does not vary", axis=variable)
    return np.asarray(np.log(np.array(values, dtype=np.float64)))


def _signs(n_runs: int, count: int, *, seed: int) -> Floats:
    """Weights of mean 0 and variance 1, one row per draw."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([-WEBB, WEBB]) if n_runs < MANY_RUNS else np.array([-1.0, 1.0])
    return np.asarray(rng.choice(values, size=(count, n_runs)))


def _spline(x: Floats) -> Floats:
    """Natural cubic spline of x with 4 knots at its quantiles (Harrell): columns 1, x, and two
    more. A parabola where x has too few distinct values; raises TooFewPoints below 4 of them."""
    distinct = len(np.unique(x))
    if distinct < 4:
        raise TooFewPoints(f"{distinct} values of ft_loss; a curve needs 4", axis="ft_loss")
    unit = (x - x.mean()) / float(np.ptp(x))
    knots = np.quantile(unit, [0.05, 0.35, 0.65, 0.95])
    if distinct < 8 or np.min(np.diff(knots)) < 0.02:
        return np.stack([np.ones_like(unit), unit, unit**2], axis=1)

    def cubed(knot: float) -> Floats:
        return np.asarray(np.maximum(unit - knot, 0.0) ** 3)

    last, before = knots[-1], knots[-2]
    bent = [
        cubed(knot)
        - cubed(before) * (last - knot) / (last - before)
        + cubed(last) * (before - knot) / (last - before)
        for knot in knots[:2]
    ]
    return np.stack([np.ones_like(unit), unit, *bent], axis=1)
