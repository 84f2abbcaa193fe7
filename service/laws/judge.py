"""Judging the laws of one recipe's points: how far each is to be trusted, and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from service.laws import heldout, mixture, spread
from service.laws.choice import choose
from service.laws.contenders import Contender, contenders, forms_of, law_of, values_of
from service.laws.criterion import Criteria, criteria
from service.laws.deming import BothErrors, both_errors
from service.laws.heldout import KINDS, NEEDS, HeldOut, Kind, Residuals
from service.laws.judgement import Judgement
from service.laws.law import LawFit
from service.laws.measured import Measured, columns, measured, thinned
from service.laws.notices import notices
from service.laws.quantities import Floats, Form, LawError, Point, Target, TooFewPoints
from service.laws.spread import Spread
from service.laws.sufficiency import sufficiency
from service.laws.variance import Explained, explained

Part = TypeVar("Part")


def judge(
    points: Sequence[Point], *, metric: Target, burn_in: int | None = None, seed: int = 17
) -> Judgement:
    """How the forms do on points they have not seen, against rivals, and what else is wrong.

    burn_in: points with `step < burn_in` are left out, 0 keeps all; null: those below a fifth of
    their run's last step. Deterministic, and blind to the order of the points. Of very many points
    a part is judged: see `measured.thinned`; the first notice says so.

    Raises BadPoints for a value that cannot be true, TooFewPoints if no point is left. Whatever
    else the points do not allow is null, with its reason in `missing`.
    """
    whole = measured(points, metric, burn_in)
    known = thinned(whole)
    competing = contenders(metric, seed=seed)
    parts = _Parts()
    laws = {form: parts.get(f"law.{form}", _law(known, form, seed)) for form in forms_of(metric)}
    unit = parts.get("unit", lambda: _unit(known, laws))
    found = heldout.residuals(known, competing, heldout.folds(known))
    held_out = {
        kind: parts.get(f"held_out.{kind}", _errors(known, kind, found, unit)) for kind in KINDS
    }
    choice = parts.get("choice", lambda: choose(known, competing, found, held_out, unit))
    tested = parts.get("sufficiency", lambda: sufficiency(known, seed=seed))
    aicc = parts.get("aicc", lambda: _criteria(known, competing, seed))
    flat = None if laws["joint"] is None else _flat(laws["joint"])
    families = parts.get("families", lambda: mixture.families(known, seed=seed))
    return Judgement(
        metric=metric,
        n_points=len(known.value),
        n_runs=len(known.runs),
        n_ranks=len(np.unique(known.params)),
        unit=unit,
        held_out=held_out,
        choice=choice,
        r2={form: _explained(known, form, law, found.get("run")) for form, law in laws.items()},
        line=parts.get("line", lambda: _both_errors(known, laws["joint"], seed)),
        sufficiency=tested,
        aicc=aicc,
        profile_flat=flat,
        families=families,
        notices=notices(
            known,
            whole=whole,
            unit=unit,
            held_out=held_out,
            choice=choice,
            sufficiency=tested,
            aicc=aicc,
            profile_flat=flat,
            families=families,
        ),
        missing=parts.missing,
    )


class _Parts:
    """Parts of a judgement; one that the points do not allow is null, and its reason is kept."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def get(self, name: str, part: Callable[[], Part]) -> Part | None:
        try:
            return part()
        except LawError as error:
            self.missing[name] = error.message
            return None


def _law(known: Measured, form: Form, seed: int) -> Callable[[], LawFit]:
    return lambda: law_of(known, form, seed=seed)


def _unit(known: Measured, laws: Mapping[Form, LawFit | None]) -> Spread:
    """The seeds' spread; without repeated seeds, the closest law's scatter."""
    found = spread.of_seeds(known)
    if found is None:
        scatter = [law.noise_sd for law in laws.values() if law is not None]
        if not scatter:
            raise TooFewPoints("no repeated seed, and no law to take the scatter of", axis="points")
        found = Spread(min(scatter), "residuals", n_places=0, freedom=len(known.value))
    if found.nats <= 1e-12 * float(np.abs(known.value).max()):
        raise TooFewPoints("forgetting does not vary between the seeds", axis=known.metric)
    return found


def _errors(
    known: Measured, kind: Kind, found: Mapping[Kind, Residuals], unit: Spread | None
) -> Callable[[], HeldOut]:
    def summed() -> HeldOut:
        if kind not in found:
            raise TooFewPoints(NEEDS[kind], axis="points")
        return heldout.errors(known, kind, found[kind], unit.nats if unit else None)

    return summed


def _explained(
    known: Measured, form: Form, law: LawFit | None, runs: Residuals | None
) -> Explained | None:
    if law is None:
        return None
    unseen = unseen_mean = None
    if runs is not None and form in runs.by_contender:
        back = np.argsort(runs.where)  # every point is held out once
        unseen, unseen_mean = runs.by_contender[form][back], runs.by_contender["mean"][back]
    return explained(known, values_of(law, known), unseen, unseen_mean)


def _both_errors(known: Measured, joint: LawFit | None, seed: int) -> BothErrors:
    """Errors from the seeds where there are enough, else about the two joint laws."""
    if known.metric == "ft_loss":
        raise LawError("L_ft has no line against itself")
    error = spread.covariance_of_seeds(known)
    if error is not None:
        return both_errors(known, error, "seeds")
    if joint is None:
        raise TooFewPoints("no repeated seeds and no joint law to tell the errors", axis="points")
    tuning = law_of(columns(known.points, "ft_loss"), "joint", seed=seed)
    return both_errors(known, np.diag([tuning.noise_sd**2, joint.noise_sd**2]), "residuals")


def _criteria(known: Measured, competing: Sequence[Contender], seed: int) -> Criteria:
    """Of every contender with coefficients, by least squares."""
    fitted: dict[str, tuple[int, Floats]] = {}
    for contender in competing:
        if contender.n_coefficients is None:
            continue
        try:
            if contender.role == "form":
                form: Form = "joint" if contender.name == "joint" else "linear"
                law = law_of(known, form, seed=seed, loss="squares")
                expected = values_of(law, known)
            else:
                expected = contender.fit(known)(known)
        except LawError:
            continue  # the law's own refusal is told under its name
        fitted[contender.name] = (contender.n_coefficients, known.value - expected)
    return criteria(known, fitted)


def _flat(joint: LawFit) -> tuple[str, ...]:
    return tuple(name for name, one in joint.coefficients.items() if not one.identifiable)
