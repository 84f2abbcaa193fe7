"""Who competes for a set of points: the forms, their rivals, and two witnesses against both."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.laws.fit import Loss, fit, solve
from service.laws.law import LawFit
from service.laws.measured import Measured, Places
from service.laws.predict import values_at
from service.laws.quantities import Floats, Form, Target
from service.laws.rivals import (
    Fitter,
    Predictor,
    last_value,
    log_linear,
    mean,
    quadratic,
    saturating,
)

Role = Literal["form", "rival", "witness"]
N_STARTS = 16
"""Starts of the joint law's search: every fold is searched anew, and 16 find what 64 find."""


@dataclass(frozen=True)
class Contender:
    """One way of predicting forgetting, fitted anew for every fold."""

    name: str
    role: Role
    n_coefficients: int | None
    """Null: it carries values over and has no likelihood."""
    fit: Fitter
    title: str
    """What it is called in a sentence."""


def law_of(known: Measured, form: Form, *, seed: int = 17, loss: Loss = "soft_l1") -> LawFit:
    """The law of points whose burn-in was already left out, with its errors."""
    return fit(
        known.points,
        form,
        metric=known.metric,
        loss=loss,
        burn_in=0,
        n_starts=N_STARTS,
        seed=seed,
    )


def values_of(law: LawFit, places: Places) -> Floats:
    """What a law expects at k places: (k,)."""
    return _at(law.form, np.array(law.values), places)


def _at(form: Form, coefficients: Floats, places: Places) -> Floats:
    if form == "linear":
        return values_at(form, coefficients, ft_loss=places.ft_loss)
    return values_at(form, coefficients, trainable_params=places.params, step=places.step)


def forms_of(metric: Target) -> tuple[Form, ...]:
    """The forms of a metric's laws; a line of L_ft against itself would say nothing."""
    return ("joint",) if metric == "ft_loss" else ("joint", "linear")


def contenders(metric: Target, *, seed: int = 17) -> tuple[Contender, ...]:
    """Forms `linear` and `joint`, rivals, witnesses.

    The line is told the measured L_ft of the place that it predicts, which only a finished run
    knows: it is a form, and the joint law's fourth rival.
    """
    everyone = (
        Contender("joint", "form", 6, _form("joint", seed), "the joint law"),
        Contender("linear", "form", 2, _form("linear", seed), "the line with measured L_ft"),
        Contender("last_value", "rival", None, last_value, "the last value carried over"),
        Contender("log_linear", "rival", 3, log_linear, "a plane in (ln P, ln N)"),
        Contender("quadratic", "rival", 6, quadratic, "a quadratic in (ln P, ln N)"),
        Contender("mean", "witness", 1, mean, "the mean of all points"),
        Contender("saturating", "witness", 5, saturating, "a saturating exponential of N"),
    )
    return tuple(c for c in everyone if c.role != "form" or c.name in forms_of(metric))


def _form(form: Form, seed: int) -> Fitter:
    def fitted(known: Measured) -> Predictor:
        # Coefficients alone: nobody reads the intervals of a fold, which take longer than its fit.
        _, found = solve(
            known.points,
            form,
            metric=known.metric,
            loss="soft_l1",
            burn_in=0,
            n_starts=N_STARTS,
            seed=seed,
        )
        return lambda places: _at(form, found.values, places)

    return fitted
