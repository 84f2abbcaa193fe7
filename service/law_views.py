"""Stored laws, and those that cannot be fitted yet, as clients see them."""

from collections.abc import Mapping
from typing import Any

from service.laws import quantities
from service.laws.fit import MIN_DISTINCT, MIN_POINTS
from service.present import rfc3339
from service.schemas.laws import Form, Law, Metric, PendingLaw, Point
from service.selection import n_rates
from service.store import PointGroup

MIN_RATES = 2


def law_view(body: Mapping[str, Any]) -> Law:
    shown = {name: body[name] for name in Law.model_fields if name in body}
    points = [{name: p.get(name) for name in Point.model_fields} for p in body["points"]]
    return Law.model_validate(shown | {"created_at": rfc3339(body["created_at"]), "points": points})


def pending_law(
    group: PointGroup, form: Form, metric: Metric, error: quantities.LawError
) -> PendingLaw:
    rows: list[dict[str, Any]] = [
        {name: point.get(name) for name in Point.model_fields} for point in group.points
    ]
    known = [quantities.Point(**row) for row in rows if row[metric] is not None]
    measured = quantities.after_burn_in(known, None)
    wanted = {"points": (len(measured), MIN_POINTS["linear" if form == "linear" else "joint"])}
    if form != "linear":
        for axis in ("trainable_params", "step"):
            distinct = len({getattr(point, axis) for point in measured})
            wanted[axis] = (distinct, MIN_DISTINCT)
    if form == "joint_lr":
        wanted["learning_rate"] = (n_rates(group), MIN_RATES)
    missing = {axis: need - have for axis, (have, need) in wanted.items() if have < need}
    return PendingLaw.model_validate(
        {
            "group": group.group,
            "recipe": group.recipe,
            "form": form,
            "metric": metric,
            "n_points": len(measured),
            "n_runs": len({point.run for point in measured}),
            "missing": missing,
            "detail": error.message,
        }
    )
