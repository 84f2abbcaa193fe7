"""A sweep's children as its view tells of them: counts, failures, work done, what a pilot is."""

from collections import Counter
from typing import Any

from service.cost import Cost, cost_of
from service.eta import Run, eta_seconds, share_done, share_of_run
from service.jobs import JobState
from service.pilot import choose, far_corner
from service.schemas.spec import FinetuneSpec, SweepSpec
from service.schemas.views import FailedChild, FarCorner, PilotView, SweepChildren, SweepWork
from service.store import ChildRow, JobRow, Store

MAX_FAILED = 20


def sweep_fields(row: JobRow, store: Store) -> dict[str, Any]:
    """The fields of a job's view that only sweeps have."""
    children = store.child_rows(row.id)
    failed = [child for child in children if child.state is JobState.FAILED]
    counts = Counter(child.state.value for child in children)
    return {
        "children": SweepChildren(total=len(children), **counts),
        "failed_children": [failed_child(child) for child in failed[:MAX_FAILED]],
        "work": work_of(children),
        "pilot": pilot_view(row, store) if row.spec["pilot"] else None,
        "extends": store.pilot_of(row.id),
    }


def work_of(children: list[ChildRow]) -> SweepWork:
    costs: dict[str, Cost] = {}  # most children of a sweep have one and the same
    runs = [run_of(child, costs) for child in children]
    return SweepWork(share_done=share_done(runs), eta_seconds=eta_seconds(runs))


def run_of(child: ChildRow, known: dict[str, Cost]) -> Run:
    training = child.spec["training"]
    key = repr((training["max_steps"], training["checkpoints"], child.spec["evaluation"]["at"]))
    if key not in known:
        known[key] = cost_of([FinetuneSpec.model_validate(child.spec)])
    cost = known[key]
    done = share_of_run(child.state, child.phase, child.progress, cost)
    return Run(cost, child.state, done, child.seconds, child.start_up, child.attempt)


def failed_child(child: ChildRow) -> FailedChild:
    training, error = child.spec["training"], child.error or {}
    return FailedChild(
        job=child.id,
        rank=training["lora"]["r"],
        seed=training["seed"],
        learning_rate=training["learning_rate"],
        code=error.get("code", "unknown"),
        detail=error.get("detail", ""),
    )


def pilot_view(row: JobRow, store: Store) -> PilotView:
    sweep = SweepSpec.model_validate(row.spec)
    chosen, (rank, step) = choose(sweep), far_corner(sweep)
    return PilotView(
        share_of_cost=chosen.share_of_cost,
        ranks=list(chosen.ranks),
        seeds=list(chosen.seeds),
        steps=list(chosen.steps),
        far_corner=FarCorner(rank=rank, step=step),
        extend=f"/v1/jobs/{row.id}/extend",
        extended_by=store.extension_of(row.id),
    )
