"""What a gate's candidate may be expected to forget by: points of its recipe, and where it stands.

The store knows them and the process that scores does not, so they are brought to it.
"""

from typing import Any

from service.foreign import DIGEST
from service.laws.statistic import NUMBERS
from service.schemas.candidates import JobAdapter
from service.schemas.spec import GateSpec
from service.store import PointGroup, Store


def expectation(spec: GateSpec, store: Store) -> dict[str, Any] | None:
    """`recipe`, `points` of its group, the candidate's `run` and, if the job that trained it
    measured that, its held-out loss `ft_loss`; or the `reason` why there are none. Null where no
    check asks. JSON."""
    if not any(check.metric in NUMBERS for check in spec.policy.checks):
        return None
    candidate = spec.adapters[0]
    ft_loss = None
    if isinstance(candidate, JobAdapter):
        run: str | None = candidate.job
        own = store.points(job=candidate.job)
        kept = [p for one in own for p in one.points if candidate.step in (None, p["step"])]
        if not kept:
            step = "" if candidate.step is None else f" of step {candidate.step}"
            return {"reason": f"{candidate.job} left no law point{step}"}
        ft_loss = max(kept, key=lambda point: int(point["step"]))["ft_loss"]
        groups = store.points(group=own[0].group)
    elif candidate.group is None:
        return {"reason": "the adapter's recipe is not known: give its `group`"}
    else:
        run = candidate.run
        groups = _named(candidate.group, store)
        if not groups:
            return {"reason": f"no law points of group {candidate.group}"}
    return {
        "recipe": groups[0].recipe,
        "points": groups[0].points,
        "run": run,
        "ft_loss": ft_loss,
    }


def _named(group: str, store: Store) -> list[PointGroup]:
    """By digest, or by the label that adapters of other trainers came under."""
    if group.startswith(DIGEST):
        return store.points(group=group)
    labelled = [one for one in store.points() if one.recipe.get("label") == group]
    return sorted(labelled, key=lambda one: len(one.points), reverse=True)
