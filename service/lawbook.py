"""Laws of stored points: fitted once per set of points, kept, and asked.

`service.laws` holds the mathematics; here its values meet the store and the wire.
"""

import heapq
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any, Self
from weakref import WeakValueDictionary

from service import selection
from service.asking import answer, fit_of, plan_of
from service.errors import InvalidSpec, TooFewPoints
from service.fitting import body_of, fitted, forms_of, judged
from service.law_picture import picture_of
from service.law_views import law_view, pending_law
from service.laws import quantities
from service.pictures import Kind, Picture
from service.residuals import job_law
from service.schemas.laws import FitRequest, Form, Law, LawPage, Laws, Metric, PendingLaw
from service.schemas.questions import Inverse, Plan, PlanRequest, Prediction, PredictRequest
from service.selection import Selection
from service.store import Access, JobRow, PointGroup, Store


class Lawbook:
    """One per app. A law is fitted once, however many ask for it; nobody waits for another's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: WeakValueDictionary[tuple[str, Metric], threading.Lock] = WeakValueDictionary()
        self._turning = threading.Lock()

    def over(self, store: Store) -> Self:
        """The same book, of what `store` shows."""
        seen = copy(self)
        seen._store = store
        return seen

    def page(
        self,
        wanted: Mapping[str, str | None],
        *,
        metric: Metric,
        form: Form | None,
        limit: int,
        after: str | None,
    ) -> LawPage:
        """Laws of the stored groups, newest first, and, unfiltered, those of points by hand.

        Raises NotFound where `after` is no law, InvalidSpec for a line of ft_loss.
        """
        start = self._store.law(after)["id"] if after is not None else None
        current: list[dict[str, Any]] = []
        pending: list[PendingLaw] = []
        for one, group in self._groups(wanted, [form] if form else None, metric):
            chosen = Selection(group.points, metric, group=group.group, recipe=group.recipe)
            try:
                current.append(self._law(chosen, one))
            except quantities.LawError as error:
                pending.append(pending_law(group, one, metric, error))
        current.sort(key=lambda body: str(body["id"]), reverse=True)
        by_hand = iter(()) if any(wanted.values()) else self._by_hand(metric, form, after)
        merged = heapq.merge(current, by_hand, key=lambda body: str(body["id"]), reverse=True)
        kept = list(islice((b for b in merged if start is None or b["id"] < start), limit + 1))
        return LawPage(
            data=[law_view(body) for body in kept[:limit]],
            has_more=len(kept) > limit,
            pending=pending if after is None else [],
        )

    def versions(
        self,
        wanted: Mapping[str, str | None],
        *,
        metric: Metric,
        form: Form | None,
        limit: int,
        after: str | None,
    ) -> LawPage:
        """Every law that is stored, also those that newer points have superseded. Fits nothing.

        Raises NotFound where `after` is no law.
        """
        filters: dict[str, Any] = {"metric": metric} | ({"form": form} if form else {})
        if given := {name for name, value in wanted.items() if value}:
            matched = selection.groups(self._store, wanted) + selection.families(
                self._store, wanted
            )
            # A group keeps its laws when the jobs that its points came from are deleted.
            alone = [wanted["group"]] if given == {"group"} else []
            filters["group"] = [*alone, *(group.group for group in matched)]
        page, more = self._store.list_laws(filters, limit=limit, after=after)
        return LawPage(data=[law_view(body) for body in page], has_more=more, pending=[])

    def law(self, law_id: str) -> Law:
        """Raises NotFound."""
        return law_view(self._store.law(law_id))

    def residual(self, job: JobRow) -> dict[str, Any]:
        """A job's `law` and `law_reason`: did it forget more than its owner's other runs say?

        The same for whoever asks, an admin too.
        """
        book = self.over(self._store.seen_by(Access.of_job(job.owner)))

        def law_of(others: PointGroup, form: Form) -> Mapping[str, Any]:
            chosen = Selection(others.points, "kl", group=others.group, recipe=others.recipe)
            return book._law(replace(chosen, for_residual=True), form)

        return job_law(book._store, job, law_of)

    def fit(self, request: FitRequest) -> Laws:
        """Raises TooFewPoints, InvalidSpec."""
        if (request.points is None) == (request.filter is None):
            raise InvalidSpec("give either `points` or `filter`", param="points")
        metric, burn_in = request.metric, request.burn_in
        if request.points is not None:
            points = [point.model_dump() for point in request.points]
            chosen = Selection(points, metric, burn_in)
            forms = forms_of(request.forms, metric, param="forms")
            return Laws(data=[self._asked(chosen, form) for form in forms])
        assert request.filter is not None
        wanted = request.filter.model_dump()
        laws, refusals = [], []
        for form, group in self._groups(wanted, request.forms, metric, param="forms"):
            part = wanted["sweep"] if self._is_part(form, group) else None
            chosen = Selection(group.points, metric, burn_in, group.group, group.recipe, part)
            try:
                laws.append(self._asked(chosen, form))
            except TooFewPoints as error:
                refusals.append(error)
        if laws:
            return Laws(data=laws)
        if refusals:
            raise refusals[0]
        raise TooFewPoints(
            "no stored point matches the filter; points come from finished finetune jobs",
            param="filter",
            n_points=0,
        )

    def predict(self, law_id: str, request: PredictRequest) -> Prediction | Inverse:
        """Raises NotFound, InvalidSpec."""
        return answer(self._store.law(law_id), request)

    def plan(self, law_id: str, request: PlanRequest) -> Plan:
        """With the law of ft_loss over the same points.

        Raises NotFound, InvalidSpec, TooFewPoints.
        """
        body = self._store.law(law_id)
        if body["form"] == "linear" or body["metric"] == "ft_loss":
            said = f"a plan needs a joint law of forgetting; this is {body['form']}"
            raise InvalidSpec(f"{said} of {body['metric']}", param="law")
        same = {name: body[name] for name in ("points", "group", "recipe", "sweep")}
        chosen = Selection(metric="ft_loss", burn_in=body["provenance"]["burn_in"], **same)
        return plan_of(body, self._kept(chosen, body["form"]), request)

    def picture(self, law_id: str, *, kind: Kind | None, limit: float | None) -> Picture:
        """Raises NotFound, InvalidSpec."""
        body = self._store.law(law_id)
        return picture_of(body, fit_of(body), kind=kind, limit=limit)

    def _groups(
        self,
        wanted: Mapping[str, str | None],
        forms: list[Form] | None,
        metric: Metric,
        *,
        param: str = "form",
    ) -> Iterator[tuple[Form, PointGroup]]:
        """What the filter matches, per form; unasked, joint_lr only where rates differ."""
        asked = forms_of(forms, metric, param=param)
        groups = selection.groups(self._store, wanted)
        yield from ((form, group) for group in groups for form in asked if form != "joint_lr")
        if forms is None or "joint_lr" in forms:
            for family in selection.families(self._store, wanted):
                if forms is not None or selection.n_rates(family) > 1:
                    yield "joint_lr", family

    def _asked(self, chosen: Selection, form: Form) -> Law:
        return law_view(self._kept(chosen, form))

    def _kept(self, chosen: Selection, form: Form) -> dict[str, Any]:
        """As `_law`, the errors of the mathematics in the service's own terms."""
        try:
            return self._law(chosen, form)
        except quantities.TooFewPoints as error:
            details = {"form": form, "axis": error.axis, "n_points": len(chosen.points)}
            if chosen.group is not None:
                details["group"] = chosen.group
            param = "filter" if chosen.group else "points"
            raise TooFewPoints(error.message, param=param, **details) from error
        except quantities.BadPoints as error:
            param = f"points.{error.index}.{error.field}"
            raise InvalidSpec(error.message, param=param) from error

    def _law(self, chosen: Selection, form: Form) -> dict[str, Any]:
        """The stored law of exactly these points; fitted, judged and stored if there is none."""
        key = chosen.fit_digest
        found = self._store.laws_of_fit(key, chosen.metric).get(form)
        if found is not None:
            return found
        with self._turn(key, chosen.metric):
            known = self._store.laws_of_fit(key, chosen.metric)
            if form in known:
                return known[form]
            law = fitted(chosen, form)
            # The forms of one set of points are judged together, so one judgement serves all.
            judgement = next((b["judgement"] for b in known.values() if b["judgement"]), None)
            if judgement is None and not chosen.for_residual:
                judgement = judged(chosen)
            return self._store.add_law(body_of(law, chosen, judgement=judgement))

    @contextmanager
    def _turn(self, fit_digest: str, metric: Metric) -> Iterator[None]:
        """One at a time for each set of points."""
        with self._turning:
            turn = self._turns.setdefault((fit_digest, metric), threading.Lock())
        with turn:
            yield

    def _is_part(self, form: Form, group: PointGroup) -> bool:
        """Whether the group has more points than these."""
        find = selection.families if form == "joint_lr" else selection.groups
        whole = find(self._store, {"group": group.group})
        return any(len(one.points) > len(group.points) for one in whole)

    def _by_hand(
        self, metric: Metric, form: Form | None, after: str | None
    ) -> Iterator[dict[str, Any]]:
        wanted = {"metric": metric, "group": None} | ({"form": form} if form else {})
        more = True
        while more:
            page, more = self._store.list_laws(wanted, limit=100, after=after)
            yield from page
            after = page[-1]["id"] if page else None
