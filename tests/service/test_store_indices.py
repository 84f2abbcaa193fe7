"""A hundred thousand finished jobs slow down neither the claim nor a page."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from service.store import Store
from tests.specs import claim, evaluate, expire, finetune, sweep

N_FINISHED = 100_000
MOST_SECONDS = 0.1
# As old as ids can be, so that a claim which walks ids in order meets all of them first.
FINISHED = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n)
INSERT INTO jobs (id, owner, type, state, base_model, spec, spec_digest, attempt, failures,
                  cancel_requested, available_at, created_at, finished_at, last_event)
SELECT 'job_' || substr('00000000000000000000000000' || CAST(i AS TEXT), -26),
       '', 'finetune', 'succeeded', 'old', '{"metadata": {}}', 'sha256:0', 1, 0,
       CAST(0 AS BOOLEAN), 0, 0, 1, 0
FROM n
"""


def finished(store: Store, n: int) -> None:
    """So many finished jobs."""
    statement = FINISHED
    if store.engine.dialect.name == "postgresql":
        statement = statement.replace(
            "substr('00000000000000000000000000' || CAST(i AS TEXT), -26)",
            "lpad(CAST(i AS TEXT), 26, '0')",
        )
    with store.engine.begin() as connection:
        connection.execute(text(statement), {"n": n})


@pytest.fixture
def full(store: Store) -> Store:
    """Finished jobs beside a few living ones."""
    finished(store, N_FINISHED)
    for _ in range(3):
        store.add_job(finetune("new", metadata={"a": "b"}))
    store.add_job(evaluate("new"))
    store.add_job(sweep(3))
    return store


@pytest.fixture
def plans(full: Store) -> Iterator[list[str]]:
    """Query plans of everything executed from here on that touches jobs."""
    if full.engine.dialect.name == "postgresql":  # which by itself keeps statistics
        with full.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
    found: list[str] = []
    explain = "EXPLAIN " if full.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "

    def hear(_c: object, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if "jobs" in statement and statement.startswith(("SELECT", "UPDATE", "DELETE")):
            cursor.execute(explain + statement, parameters)
            found.append("\n".join(str(row[-1]) for row in cursor.fetchall()) + "\n" + statement)

    event.listen(full.engine, "before_cursor_execute", hear)
    yield found
    event.remove(full.engine, "before_cursor_execute", hear)


def scans(plan: str) -> bool:
    """Whether a plan reads the whole table."""
    lines = [line.strip(" ->") for line in plan.split("\nSELECT")[0].splitlines()]
    return any(
        line.startswith("Seq Scan on jobs ")
        or (line.startswith("SCAN jobs") and "sqlite_autoindex_jobs_1" not in line)
        or "TEMP B-TREE FOR ORDER BY" in line
        for line in lines
    )


PAGES: list[dict[str, Any]] = [
    {},
    {"status": "queued"},
    {"status": "succeeded"},
    {"status": "failed"},
    {"type": "evaluate"},
    {"base_model": "new"},
    {"metadata": {"a": "b"}},
    {"status": "queued", "type": "evaluate", "base_model": "new"},
]
WORK: dict[str, Callable[[Store], object]] = {
    "claim": lambda store: store.claim("worker"),
    "reap": lambda store: store.reap(),
    "stale_queued": lambda store: store.stale_queued(0),
    **{f"list {page}": lambda store, page=page: store.list_jobs(**page) for page in PAGES},
    "after": lambda store: store.list_jobs(after=f"job_{50_000:026d}"),
}


def test_nothing_that_runs_often_reads_the_whole_table(full: Store, plans: list[str]) -> None:
    for ask in WORK.values():
        ask(full)
    held = claim(full)
    full.beat(held, [{"kind": "log", "message": "x"}])
    expire(full, held.job_id)
    full.reap()
    parent = full.list_jobs(type="sweep")[0][0].id
    full.list_jobs(sweep=parent)
    full.children(parent)
    full.child_rows(parent)
    full.extension_of(parent)
    full.pilot_of(parent)
    full.cancel_job(parent)
    full.resume_job(parent)
    assert len(plans) > 20
    bad = "\n\n".join(plan for plan in plans if scans(plan))
    assert not bad, bad


def test_the_plans_show_a_missing_index(full: Store, plans: list[str]) -> None:
    with full.engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_jobs_type_id"))
        connection.execute(text("DROP INDEX ix_jobs_sweep_id_id"))
    full.children("job_none")
    assert scans(plans[-1])


def test_a_claim_and_a_page_take_milliseconds(full: Store) -> None:
    medians = {}
    for name, ask in WORK.items():
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            ask(full)
            seconds.append(time.perf_counter() - begun)
        medians[name] = statistics.median(seconds)
    assert max(medians.values()) < MOST_SECONDS, medians
