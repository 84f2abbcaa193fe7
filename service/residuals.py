"""Law residuals of finished jobs, computed when asked for: runs that finish later improve them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from service.laws.law import LawFit
from service.laws.quantities import LawError, Point
from service.laws.residual import compare, others
from service.schemas.laws import Form
from service.schemas.result import JobLaw, LawResidual
from service.store import JobRow, PointGroup, Store

LawOf = Callable[[PointGroup, Form], Mapping[str, Any]]
"""The stored law of KL over exactly these points. Raises LawError."""


def job_law(store: Store, job: JobRow, law_of: LawOf) -> dict[str, Any]:
    """`law` and `law_reason` of a job, as `views.Job` and `result.Result` have them.

    The job's last adapter is judged by the line and by the joint law, its other runs by the line.
    Both are null for a job without law points.
    """
    groups = store.points(job=job.id)
    measured = {point["run"]: (group, point) for group in groups for point in group.points}
    found: list[LawResidual] = []
    reason: str | None = None
    forms: tuple[Form, ...] = ("linear", "joint")
    for run in (name for name in runs_of(job) if name in measured):
        group, point = measured[run]  # the last by step
        stored = [other for whole in store.points(group=group.group) for other in whole.points]
        for form in forms:
            try:
                beside = replace(group, points=_others(stored, run))
                found.append(_against(beside, Point(**point), form, law_of))
            except LawError as error:
                reason = reason or error.message
        forms = ("linear",)
    if not found:
        return {"law": None, "law_reason": reason}
    first, *rest = found
    law = JobLaw(**first.model_dump(), also=rest)
    return {"law": law.model_dump(mode="json"), "law_reason": None}


def runs_of(job: JobRow) -> list[str]:
    """Names that the job's runs have as points, the last adapter's first."""
    if job.type != "evaluate":
        return [job.id]
    named = [adapter.get("run") for adapter in reversed(job.spec["adapters"])]
    return list(dict.fromkeys(name for name in named if name is not None))


def _others(points: list[dict[str, Any]], run: str) -> list[dict[str, Any]]:
    """Raises TooFewPoints."""
    kept = {other.run for other in others([Point(**point) for point in points], run)}
    return [point for point in points if point["run"] in kept]


def _against(beside: PointGroup, point: Point, form: Form, law_of: LawOf) -> LawResidual:
    """Raises LawError."""
    body = law_of(beside, form)
    found = compare(LawFit.from_json(body["fit"]), point)
    return LawResidual(
        id=body["id"],
        form=found.form,
        run=found.run,
        step=found.step,
        measured=found.measured,
        expected=found.expected,
        residual=found.residual,
        z=found.z,
        ci95=found.ci95,
        pi95=found.pi95,
        n_runs=found.n_runs,
        extrapolating=found.extrapolating,
    )
