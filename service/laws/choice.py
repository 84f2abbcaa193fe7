"""Which form may be the default: one that nothing beats on points that it has not seen.

The overall error of a contender is the mean over the kinds of folds of its mean absolute error.
A form is beaten where another's is smaller by more than TIE spreads of the seeds and by more than
one standard error of the difference (over runs, paired): less is chance. Of forms that are not
beaten the joint law comes first, because it can be asked before a run is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.laws.contenders import Contender
from service.laws.heldout import HeldOut, Kind, Residuals
from service.laws.measured import Measured
from service.laws.quantities import FORMS, Form, TooFewPoints
from service.laws.spread import Spread

TIE = 0.25
"""Share of the spread by which another's overall error may be smaller without beating a form."""
NOTHING_LEARNT = 0.1
"""Where no form's overall error is a tenth below that of the mean, the points are noise to it."""


@dataclass(frozen=True)
class Standing:
    """One contender over all counted kinds."""

    mae: float
    """Nats per token."""
    behind: float
    """Its mean absolute error less the winner's, in spreads."""
    behind_se: float | None
    """Standard error of `behind` over the runs; null below 2 runs."""


@dataclass(frozen=True)
class Choice:
    """Who wins held out, and whether a form may be the default."""

    default: Form | None
    winner: str
    kinds: tuple[Kind, ...]
    """Counted: those in which every form that can be fitted at all has errors."""
    overall: dict[str, Standing]
    beaten_by: dict[Form, str | None]
    """Per form that was fitted: the winner, where that beats it."""
    tie_in_spreads: float
    learnt: bool
    """Some form's overall error is at least a tenth below that of the plain mean."""
    reason: str


def choose(
    known: Measured,
    contenders: Sequence[Contender],
    found: Mapping[Kind, Residuals],
    held_out: Mapping[Kind, HeldOut | None],
    unit: Spread | None,
) -> Choice:
    """Raises TooFewPoints where no form was fitted to any kind of folds, or there is no unit."""
    fitted = [f for f in FORMS if any(f in r.by_contender for r in found.values())]
    kinds = tuple(k for k, r in found.items() if all(f in r.by_contender for f in fitted))
    if not fitted or not kinds:
        raise TooFewPoints("no form could be fitted with points held out", axis="points")
    if unit is None:
        raise TooFewPoints("no spread to count margins in", axis="points")
    names = [c.name for c in contenders if all(c.name in found[k].by_contender for k in kinds)]
    mae = {name: float(np.mean([_mae(held_out[kind], name) for kind in kinds])) for name in names}
    winner = min(names, key=lambda name: mae[name])
    overall = {}
    for name in names:
        error = _standard_error(known, [found[kind] for kind in kinds], name, winner)
        overall[name] = Standing(
            mae=mae[name],
            behind=(mae[name] - mae[winner]) / unit.nats,
            behind_se=None if error is None else error / unit.nats,
        )
    beaten_by: dict[Form, str | None] = {
        form: winner if _beaten(overall[form]) else None for form in fitted
    }
    learnt = min(mae[form] for form in fitted) < (1.0 - NOTHING_LEARNT) * mae["mean"]
    order: tuple[Form, ...] = ("joint", "linear")
    standing = [form for form in order if form in fitted and beaten_by[form] is None]
    default = standing[0] if standing and learnt else None
    return Choice(
        default=default,
        winner=winner,
        kinds=kinds,
        overall=overall,
        beaten_by=beaten_by,
        tie_in_spreads=TIE,
        learnt=learnt,
        reason=_reason(contenders, overall, fitted, default, winner, learnt=learnt),
    )


def _mae(held_out: HeldOut | None, name: str) -> float:
    missed = held_out.errors[name] if held_out else None
    assert missed is not None
    return missed.mae


def _beaten(standing: Standing) -> bool:
    return standing.behind > max(TIE, standing.behind_se or 0.0)


def _standard_error(
    known: Measured, parts: Sequence[Residuals], name: str, winner: str
) -> float | None:
    """Of the difference in mean absolute error between two contenders, runs being independent."""
    by_run: dict[str, list[float]] = {}
    for part in parts:
        gap = np.abs(part.by_contender[name]) - np.abs(part.by_contender[winner])
        run = known.run[part.where]
        for one in np.unique(run):
            by_run.setdefault(str(one), []).append(float(gap[run == one].mean()))
    means = [float(np.mean(gaps)) for gaps in by_run.values()]
    return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None


def _reason(
    contenders: Sequence[Contender],
    overall: Mapping[str, Standing],
    fitted: Sequence[Form],
    default: Form | None,
    winner: str,
    *,
    learnt: bool,
) -> str:
    title = {contender.name: contender.title for contender in contenders}
    best = overall[winner].mae

    def against(name: str) -> str:
        standing = overall[name]
        error = "" if standing.behind_se is None else f" +- {standing.behind_se:.2f}"
        return f"{standing.mae:.4g} nats, {standing.behind:.2f}{error} spreads behind"

    if not learnt:
        form = min(fitted, key=lambda one: overall[one].mae)
        return (
            f"No form is the default: held out, {title[form]} misses by {overall[form].mae:.4g} "
            f"nats and {title['mean']} by {overall['mean'].mae:.4g}; that is no law."
        )
    if default is None:
        losers = "; ".join(f"{title[form]} by {against(form)}" for form in fitted)
        return (
            f"No form is the default: held out, {title[winner]} misses by {best:.4g} nats on "
            f"average, {losers}."
        )
    others = [name for name in overall if name != default]
    if default == winner:
        second = min(others, key=lambda name: overall[name].mae)
        return (
            f"{_capital(title[default])} is the default: held out it misses by {best:.4g} nats on "
            f"average; next is {title[second]} with {against(second)}."
        )
    return (
        f"{_capital(title[default])} is the default: held out it misses by {against(default)} "
        f"{title[winner]} ({best:.4g} nats), which is a tie (within {TIE:g} spreads, or one "
        "standard error)."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
