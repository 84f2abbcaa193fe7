"""Small specs, reports and results for tests of the store."""

from typing import Any

from sqlalchemy import update

from service.schemas.candidates import PathAdapter
from service.schemas.spec import Dataset, EvaluateSpec, FinetuneSpec, SweepSpec
from service.store import Claim, Store
from service.tables import jobs

ERROR = {"code": "dataset_unreadable", "detail": "line 3 is no JSON", "class": "user"}


def finetune(name: str = "m", **fields: Any) -> FinetuneSpec:
    return FinetuneSpec(base_model=name, dataset=Dataset(path="rows.jsonl"), **fields)


def evaluate(name: str = "m", **fields: Any) -> EvaluateSpec:
    adapters = [PathAdapter(path="one"), PathAdapter(path="two")]
    return EvaluateSpec(type="evaluate", base_model=name, adapters=adapters, **fields)


def sweep(n_children: int = 2, **fields: Any) -> SweepSpec:
    ranks = [2 ** (i + 1) for i in range(n_children)]
    body = {"base_model": "m", "dataset": {"path": "rows.jsonl"}, "ranks": ranks, "seeds": [17]}
    return SweepSpec(type="sweep", **body | fields)


def claim(store: Store, worker: str = "worker") -> Claim:
    """The next claim; there must be one."""
    taken = store.claim(worker)
    assert taken is not None
    return taken


def expire(store: Store, job_id: str) -> None:
    """As if the worker had been silent for longer than its lease."""
    with store.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(lease_expires_at=0.0))


def kinds(store: Store, job_id: str) -> list[str]:
    """Event kinds in order; of status events the status, of the last one `done:<status>`."""
    shown = {"status": "{status}", "done": "done:{status}"}
    return [shown.get(e.kind, e.kind).format(**e.data) for e in store.events(job_id)]
