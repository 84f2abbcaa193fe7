"""Errors on points that a contender has not seen. Interpolating and extrapolating are kept apart.

Kinds of folds: `inner_rank` and `edge_rank` leave out one value of P, between others or at an
end; `later_steps` fits the first half of the distinct steps and predicts the rest; `run` leaves
out one run. Errors are averaged so that every held-out run counts the same.

Every fold is a search of its own, so a kind has at most MAX_FOLDS: of more inner ranks so many are
left out, evenly; more runs are left out several at a time, of different ranks where possible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.laws.contenders import Contender
from service.laws.measured import Mask, Measured, Places, evenly
from service.laws.quantities import Floats, LawError
from service.laws.rivals import Predictor

Kind = Literal["inner_rank", "edge_rank", "later_steps", "run"]
KINDS: tuple[Kind, ...] = ("inner_rank", "edge_rank", "later_steps", "run")
NEEDS: dict[Kind, str] = {
    "inner_rank": "needs 3 values of trainable_params",
    "edge_rank": "needs 2 values of trainable_params",
    "later_steps": "needs 2 values of step",
    "run": "needs 2 runs",
}


MAX_FOLDS = 20


@dataclass(frozen=True)
class Fold:
    """Points to predict from all others. `name`: what is left out."""

    name: str
    test: Mask


@dataclass(frozen=True)
class Missed:
    """Held-out error of one contender, nats per token."""

    mae: float
    rmse: float
    mae_in_spreads: float | None
    rmse_in_spreads: float | None
    by_fold: dict[str, float]
    """Mean absolute error of each fold."""


@dataclass(frozen=True)
class HeldOut:
    """One kind of folds. A contender that could not be fitted to every fold is null."""

    kind: Kind
    n_folds: int
    n_points: int
    errors: dict[str, Missed | None]
    winner: str | None
    """Least mean absolute error."""
    refused: dict[str, str]
    """Why a contender is null."""


@dataclass(frozen=True)
class Residuals:
    """Measured minus predicted of one kind of folds, by contender; k held-out points."""

    folds: tuple[Fold, ...]
    where: np.typing.NDArray[np.intp]
    """Index of each held-out point."""
    by_contender: dict[str, Floats]
    refused: dict[str, str]


def folds(known: Measured) -> dict[Kind, tuple[Fold, ...]]:
    """What is left out, by kind; no folds where the points do not allow the kind."""
    params, steps = np.unique(known.params), np.unique(known.step)
    ranks = [Fold(_name(known, value), known.params == value) for value in params]
    early = steps[: (len(steps) + 1) // 2]
    later = Fold(f"step > {early[-1]:g}", known.step > early[-1])
    return {
        "inner_rank": tuple(evenly(ranks[1:-1], MAX_FOLDS)),
        "edge_rank": (ranks[0], ranks[-1]) if len(ranks) > 1 else (),
        "later_steps": (later,) if len(steps) > 1 else (),
        "run": _of_runs(known) if len(known.runs) > 1 else (),
    }


def _of_runs(known: Measured) -> tuple[Fold, ...]:
    """Every point is held out once."""
    if len(known.runs) <= MAX_FOLDS:
        return tuple(Fold(run, known.run == run) for run in known.runs)
    # The points are sorted by rank: neighbours, which share one, come into different folds.
    ordered = list(dict.fromkeys(known.run.tolist()))
    groups = (ordered[i::MAX_FOLDS] for i in range(MAX_FOLDS))
    return tuple(
        Fold(f"{first} and {len(more)} more", np.isin(known.run, [first, *more]))
        for first, *more in groups
    )


def residuals(
    known: Measured, contenders: Sequence[Contender], wanted: Mapping[Kind, tuple[Fold, ...]]
) -> dict[Kind, Residuals]:
    """Every contender fitted without each fold, and what it then misses there."""
    fitted: dict[tuple[str, bytes], Predictor | LawError] = {}
    found: dict[Kind, Residuals] = {}
    for kind, parts in wanted.items():
        if not parts:
            continue
        by_contender, refused = {}, {}
        for contender in contenders:
            missed = []
            for fold in parts:
                predictor = _fitted(known, contender, fold, fitted)
                if isinstance(predictor, LawError):
                    refused[contender.name] = f"without {fold.name}: {predictor.message}"
                    break
                missed.append(known.value[fold.test] - predictor(_places(known, fold)))
            else:
                by_contender[contender.name] = np.concatenate(missed)
        where = np.concatenate([np.flatnonzero(fold.test) for fold in parts])
        found[kind] = Residuals(parts, where, by_contender, refused)
    return found


def errors(known: Measured, kind: Kind, found: Residuals, unit: float | None) -> HeldOut:
    """Residuals summed up. unit: the spread in nats; null leaves the errors in nats only."""
    index = np.unique(known.run[found.where], return_inverse=True)[1]
    weight = 1.0 / np.bincount(index)[index]
    sizes = np.cumsum([int(fold.test.sum()) for fold in found.folds])[:-1]
    summed: dict[str, Missed | None] = dict.fromkeys(found.refused)
    for name, missed in found.by_contender.items():
        mae = float(np.average(np.abs(missed), weights=weight))
        rmse = float(np.sqrt(np.average(missed**2, weights=weight)))
        parts = zip(found.folds, np.split(np.abs(missed), sizes), strict=True)
        summed[name] = Missed(
            mae=mae,
            rmse=rmse,
            mae_in_spreads=mae / unit if unit else None,
            rmse_in_spreads=rmse / unit if unit else None,
            by_fold={fold.name: float(part.mean()) for fold, part in parts},
        )
    ranked = sorted((m.mae, name) for name, m in summed.items() if m is not None)
    return HeldOut(
        kind=kind,
        n_folds=len(found.folds),
        n_points=len(found.where),
        errors=summed,
        winner=ranked[0][1] if ranked else None,
        refused=dict(found.refused),
    )


def _fitted(
    known: Measured,
    contender: Contender,
    fold: Fold,
    fitted: dict[tuple[str, bytes], Predictor | LawError],
) -> Predictor | LawError:
    # With one run per rank, leaving out a run is leaving out a rank: fitted once.
    key = (contender.name, fold.test.tobytes())
    if key not in fitted:
        try:
            fitted[key] = contender.fit(known.part(~fold.test))
        except LawError as error:
            fitted[key] = error
    return fitted[key]


def _places(known: Measured, fold: Fold) -> Places:
    """The fold's places without their values: what is predicted cannot be looked at."""
    return Places(
        run=known.run[fold.test],
        params=known.params[fold.test],
        step=known.step[fold.test],
        ft_loss=known.ft_loss[fold.test],
    )


def _name(known: Measured, params: float) -> str:
    """`rank 8` where the points know it, else the number of parameters."""
    ranks = {p.rank for p in known.points if p.trainable_params == params}
    rank = next(iter(ranks)) if len(ranks) == 1 else None
    # One rank of two shapes has two values of P, and each needs a name of its own.
    shared = any(p.rank == rank and p.trainable_params != params for p in known.points)
    return f"{params:.0f} trainable_params" if rank is None or shared else f"rank {rank}"
