"""Checks of a policy that could never be measured, refused before anything is scored."""

from typing import Protocol

import numpy as np

from service.errors import InvalidSpec
from service.laws.statistic import BadCheck, statistic_of
from service.schemas.candidates import JobAdapter
from service.schemas.policy import NumberCheck
from service.schemas.spec import GateSpec
from service.store.rows import PointGroup


class Judged(Protocol):
    """What is asked of the store about the law points of a job."""

    def points(self, *, job: str) -> list[PointGroup]: ...


def check_policy(spec: GateSpec, store: Judged | None) -> None:
    """Raises InvalidSpec, naming the check's field."""
    for name, baseline in spec.policy.baselines.items():
        if isinstance(baseline, JobAdapter):
            continue
        for field in ("run", "group"):
            if getattr(baseline, field) is not None:
                said = "a baseline is compared with, and is no law point"
                raise InvalidSpec(said, param=f"policy.baselines.{name}.{field}")
    for index, check in enumerate(spec.policy.checks):
        at = f"policy.checks.{index}"
        if isinstance(check, NumberCheck):
            if not check.informational:
                _require_law(spec, store, param=f"{at}.metric", metric=check.metric)
            continue
        try:
            statistic_of(check.pure(), np.ones(1))
        except BadCheck as error:
            raise InvalidSpec(error.message, param=f"{at}.{error.field}") from error


def _require_law(spec: GateSpec, store: Judged | None, *, param: str, metric: str) -> None:
    """A residual takes a held-out loss and the recipe whose law it is held against."""
    [candidate] = spec.adapters
    why = None
    if isinstance(candidate, JobAdapter):
        groups = store.points(job=candidate.job) if store is not None else []
        steps = {point["step"] for group in groups for point in group.points}
        if store is not None and not steps & ({candidate.step} if candidate.step else steps):
            step = f" of step {candidate.step}" if candidate.step else ""
            why = f"{candidate.job} left no law point{step}"
    elif spec.dataset is None:
        why = "the job has no dataset, whose held-out loss says where on its law the candidate is"
    elif candidate.group is None:
        why = "adapters.0 names no group, the recipe whose law is meant"
    if why is not None:
        said = f"{metric} cannot be measured: {why}; or mark the check informational"
        raise InvalidSpec(said, param=param)
