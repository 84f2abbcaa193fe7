"""From a selection of points to the body of a law, through the mathematics of `service.laws`."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import InvalidSpec
from service.laws import quantities
from service.laws.across import AcrossFit, fit_across
from service.laws.fit import fit
from service.laws.judge import judge
from service.laws.law import LawFit
from service.schemas.laws import Form, Law, Metric
from service.selection import FIT_VERSION, POINT_FIELDS, Selection

LIBRARIES = ("numpy", "scipy")


def forms_of(forms: list[Form] | None, metric: Metric, *, param: str) -> list[Form]:
    """Without repetitions; null: those that every group may have.

    Raises InvalidSpec: ft_loss against itself is no law.
    """
    if metric == "ft_loss" and forms is not None and "linear" in forms:
        said = "a line of ft_loss against ft_loss is no law; its forms are joint and joint_lr"
        raise InvalidSpec(said, param=param)
    every: list[Form] = ["joint"] if metric == "ft_loss" else ["linear", "joint"]
    return list(dict.fromkeys(forms or every))


def fitted(chosen: Selection, form: Form) -> LawFit | AcrossFit:
    """Raises the errors of `service.laws`."""
    points = _points(chosen)
    if form == "joint_lr":
        return fit_across(points, metric=chosen.metric, burn_in=chosen.burn_in)
    return fit(points, form, metric=chosen.metric, burn_in=chosen.burn_in)


def judged(chosen: Selection) -> dict[str, Any] | None:
    """How far a law of these points can be trusted; null where there is too little to judge."""
    if chosen.metric == "ft_loss":
        return None
    try:
        found = judge(_points(chosen), metric=chosen.metric, burn_in=chosen.burn_in)
    except quantities.TooFewPoints:
        return None
    return found.to_json()


def body_of(
    law: LawFit | AcrossFit, chosen: Selection, *, judgement: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is stored: the view's fields, and under `fit` all that predictions need."""
    joint = law.law if isinstance(law, AcrossFit) else law
    shown = joint.to_json() | {"form": law.form, "domain": law.domain.to_json()}
    shown["coefficients"] = {name: one.to_json() for name, one in law.coefficients.items()}
    shown["warnings"] = list(law.warnings)
    if isinstance(law, AcrossFit):
        shown["residuals"] = None
    rows = chosen.rows
    n_measured = len(_measured(chosen))
    return {
        **{name: shown[name] for name in Law.model_fields if name in shown},
        "across": _across(law) if isinstance(law, AcrossFit) else None,
        "group": chosen.group,
        "sweep": chosen.sweep,
        "series": chosen.series,
        "recipe": None if chosen.recipe is None else dict(chosen.recipe),
        "fit_digest": chosen.fit_digest,
        "provenance": {
            "points_digest": chosen.points_digest,
            "burn_in": chosen.burn_in,
            "left_out": {
                "burn_in": n_measured - joint.n_points,
                "unmeasured": len(rows) - n_measured,
            },
            "fit_version": FIT_VERSION,
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "points": rows,
        "judgement": judgement,
        "fit": law.to_json(),
    }


def _across(law: AcrossFit) -> dict[str, Any]:
    whole = law.to_json()
    names = ("gamma_ci95", "rates", "delta_norm", "chosen_by", "reason", "candidates", "rivals")
    return {"exposure": law.exposure, "gamma": law.scale.gamma} | {n: whole[n] for n in names}


def _measured(chosen: Selection) -> Sequence[Mapping[str, Any]]:
    """All points sent by hand: there a gap is a mistake. A job's checkpoint may lack one metric."""
    if chosen.group is None:
        return chosen.points
    return [point for point in chosen.points if point.get(chosen.metric) is not None]


def _points(chosen: Selection) -> list[quantities.Point]:
    rows: list[dict[str, Any]] = [
        {name: point.get(name) for name in POINT_FIELDS} for point in _measured(chosen)
    ]
    return [quantities.Point(**row) for row in rows]
