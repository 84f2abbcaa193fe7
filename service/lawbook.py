"""Laws of stored points: fitted once per set of points, kept, and asked.

`service.laws` holds the mathematics; here its values meet the store and the wire.
"""

import hashlib
import heapq
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from service.errors import InvalidSpec, TooFewPoints
from service.laws import quantities
from service.laws.fit import MIN_DISTINCT, MIN_POINTS, fit
from service.laws.law import LawFit
from service.laws.predict import predict
from service.present import rfc3339
from service.schemas.laws import (
    FitRequest,
    Form,
    Law,
    LawPage,
    Laws,
    Metric,
    PendingLaw,
    Point,
    Prediction,
    PredictRequest,
)
from service.store import PointGroup, Store

FORMS: tuple[Form, ...] = ("linear", "joint")
FIT_VERSION = 1
"""Part of the points' digest: raised with the mathematics, so that old fits are not served."""


class Lawbook:
    """One per app; fits one law at a time, because a second reader wants the same one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fitting = threading.Lock()

    def page(
        self,
        group_filter: Mapping[str, str | None],
        *,
        metric: Metric,
        form: Form | None,
        limit: int,
        after: str | None,
    ) -> LawPage:
        """Laws of the stored groups, newest first, and, unfiltered, those of points by hand.

        Raises NotFound where `after` is no law.
        """
        start = self._store.law(after)["id"] if after is not None else None
        current: list[dict[str, Any]] = []
        pending: list[PendingLaw] = []
        for group in self._store.points(**group_filter):
            for one in FORMS if form is None else (form,):
                try:
                    current.append(self._law(group.points, one, metric, group))
                except quantities.LawError as error:
                    pending.append(pending_law(group, one, metric, error))
        current.sort(key=lambda body: str(body["id"]), reverse=True)
        by_hand = iter(()) if any(group_filter.values()) else self._by_hand(metric, form, after)
        merged = heapq.merge(current, by_hand, key=lambda body: str(body["id"]), reverse=True)
        kept = list(islice((b for b in merged if start is None or b["id"] < start), limit + 1))
        return LawPage(
            data=[law_view(body) for body in kept[:limit]],
            has_more=len(kept) > limit,
            pending=pending if after is None else [],
        )

    def law(self, law_id: str) -> Law:
        """Raises NotFound."""
        return law_view(self._store.law(law_id))

    def fit(self, request: FitRequest) -> Laws:
        """Raises TooFewPoints, InvalidSpec."""
        if (request.points is None) == (request.filter is None):
            raise InvalidSpec("give either `points` or `filter`", param="points")
        forms = list(dict.fromkeys(request.forms))
        if request.points is not None:
            points = [point.model_dump() for point in request.points]
            return Laws(data=[self._asked(points, form, request.metric, None) for form in forms])
        assert request.filter is not None
        groups = self._store.points(**request.filter.model_dump())
        if not groups:
            raise TooFewPoints(
                "no stored point matches the filter; points come from finished finetune jobs",
                param="filter",
                n_points=0,
            )
        fitted, refusals = [], []
        for group in groups:
            for form in forms:
                try:
                    fitted.append(self._asked(group.points, form, request.metric, group))
                except TooFewPoints as error:
                    refusals.append(error)
        if not fitted:
            raise refusals[0]
        return Laws(data=fitted)

    def predict(self, law_id: str, request: PredictRequest) -> Prediction:
        """Raises NotFound, InvalidSpec."""
        body = self._store.law(law_id)
        try:
            found = predict(LawFit.from_json(body["fit"]), **request.model_dump())
        except quantities.BadQuery as error:
            raise InvalidSpec(error.message, param=error.field) from error
        return Prediction(
            law=body["id"],
            metric=found.metric,
            value=found.value,
            ci95=found.ci95,
            pi95=found.pi95,
            extrapolating=found.extrapolating,
            warnings=list(found.warnings),
        )

    def _asked(
        self,
        points: Sequence[Mapping[str, Any]],
        form: Form,
        metric: Metric,
        group: PointGroup | None,
    ) -> Law:
        try:
            return law_view(self._law(points, form, metric, group))
        except quantities.TooFewPoints as error:
            details = {"form": form, "axis": error.axis, "n_points": len(points)}
            if group is not None:
                details["group"] = group.group
            param = "filter" if group else "points"
            raise TooFewPoints(error.message, param=param, **details) from error
        except quantities.BadPoints as error:
            param = f"points.{error.index}.{error.field}"
            raise InvalidSpec(error.message, param=param) from error

    def _law(
        self,
        points: Sequence[Mapping[str, Any]],
        form: Form,
        metric: Metric,
        group: PointGroup | None,
    ) -> dict[str, Any]:
        """The stored law of exactly these points; fitted and stored if there is none."""
        key = points_digest(points, group)
        with self._fitting:
            known = self._store.law_of_points(key, form, metric)
            if known is not None:
                return known
            if group is not None:  # a job's checkpoint may lack one metric
                points = [point for point in points if point[metric] is not None]
            found = fit([quantities.Point(**p) for p in points], form, metric=metric, burn_in=0)
            return self._store.add_law(law_body(found, points, key, group))

    def _by_hand(
        self, metric: Metric, form: Form | None, after: str | None
    ) -> Iterator[dict[str, Any]]:
        wanted: dict[str, str] = {"metric": metric} | ({"form": form} if form else {})
        more = True
        while more:
            page, more = self._store.list_laws(wanted, limit=100, after=after)
            yield from (body for body in page if body["group"] is None)
            after = page[-1]["id"] if page else None


def points_digest(points: Sequence[Mapping[str, Any]], group: PointGroup | None) -> str:
    """sha256 over the group and its points, whatever their order."""
    rows = sorted(json.dumps(dict(point), sort_keys=True) for point in points)
    whole = json.dumps([FIT_VERSION, group.group if group else None, rows])
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def law_body(
    law: LawFit, points: Sequence[Mapping[str, Any]], digest: str, group: PointGroup | None
) -> dict[str, Any]:
    """What is stored: the view's fields, and under `fit` all that predictions need."""
    whole = law.to_json()
    return {
        **{name: whole[name] for name in Law.model_fields if name in whole},
        "group": group.group if group else None,
        "recipe": group.recipe if group else None,
        "points_digest": digest,
        "points": [dict(point) for point in points],
        "fit": whole,
    }


def law_view(body: Mapping[str, Any]) -> Law:
    shown = {name: body[name] for name in Law.model_fields if name in body}
    points = [{name: p.get(name) for name in Point.model_fields} for p in body["points"]]
    return Law.model_validate(shown | {"created_at": rfc3339(body["created_at"]), "points": points})


def pending_law(
    group: PointGroup, form: Form, metric: Metric, error: quantities.LawError
) -> PendingLaw:
    measured = [point for point in group.points if point[metric] is not None]
    wanted = {"points": (len(measured), MIN_POINTS[form])}
    if form == "joint":
        for axis in ("trainable_params", "step"):
            distinct = len({point[axis] for point in measured})
            wanted[axis] = (distinct, MIN_DISTINCT)
    missing = {axis: need - have for axis, (have, need) in wanted.items() if have < need}
    return PendingLaw.model_validate(
        {
            "group": group.group,
            "recipe": group.recipe,
            "form": form,
            "metric": metric,
            "n_points": len(measured),
            "n_runs": len({point["run"] for point in measured}),
            "missing": missing,
            "detail": error.message,
        }
    )
