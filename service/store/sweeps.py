"""A sweep's row follows its children, inside the transaction that moves a child.

Its status is theirs, summed up, and no end is for ever: a sweep that succeeded with failed or
cancelled children is queued again when one of those is resumed, and ends again with it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from service.columns import epoch_now
from service.jobs import NEXT, TERMINAL, FailureClass, JobState
from service.store.database import Database
from service.store.moves import announce, move, record
from service.store.rows import ChildRow
from service.tables import extensions, jobs, metrics


class Sweeps(Database):
    def children(self, job_id: str) -> dict[JobState, int]:
        """How many children stand in each state; empty for what is no sweep."""
        with self._read() as connection:
            return _states(_children(connection, job_id))

    def child_rows(self, job_id: str) -> list[ChildRow]:
        """The children of a sweep, oldest first; none for what is no sweep."""
        seconds = func.coalesce(jobs.c.finished_at, epoch_now()) - jobs.c.started_at
        mine = (metrics.c.job_id == jobs.c.id) & (metrics.c.name == "train_loss")
        first_step = select(metrics.c.at).where(mine).order_by(metrics.c.step).limit(1)
        start_up = first_step.scalar_subquery() - jobs.c.started_at
        columns = [jobs.c[name] for name in _SHOWN]
        query = select(*columns, seconds.label("seconds"), start_up.label("start_up"))
        query = query.where(jobs.c.sweep_id == job_id)
        with self._read() as connection:
            rows = connection.execute(query.order_by(jobs.c.id)).all()
        return [_child(row) for row in rows]

    def extension_of(self, pilot_id: str) -> str | None:
        """The sweep that goes on from this pilot, if there is one."""
        return self._link(select(extensions.c.sweep_id).where(extensions.c.pilot_id == pilot_id))

    def pilot_of(self, job_id: str) -> str | None:
        """The pilot that this sweep goes on from, if it does."""
        return self._link(select(extensions.c.pilot_id).where(extensions.c.sweep_id == job_id))

    def _link(self, query: Select[Any]) -> str | None:
        with self._read() as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        return found


_SHOWN = ("id", "state", "spec", "phase", "progress", "attempt", "error")


def _child(row: Row[*tuple[Any, ...]]) -> ChildRow:
    fields = row._asdict()
    for name in ("seconds", "start_up"):
        fields[name] = None if fields[name] is None else max(0.0, float(fields[name]))
    return ChildRow(**fields | {"state": JobState(fields["state"])})


def _children(connection: Connection, sweep_id: str) -> Sequence[Row[Any, Any]]:
    """(state, attempt) of each; at most a few hundred."""
    query = select(jobs.c.state, jobs.c.attempt).where(jobs.c.sweep_id == sweep_id)
    return connection.execute(query).all()


def _states(children: Sequence[Row[Any, Any]]) -> dict[JobState, int]:
    return dict(Counter(JobState(child.state) for child in children))


def sweep_state(
    children: Mapping[JobState, int], *, started: bool, cancel_requested: bool
) -> JobState:
    """Where a sweep stands, given how many children stand where.

    `started`: whether any child was ever claimed. A sweep that was asked to stop is cancelled
    if that stopped any child; otherwise one success makes it a success.
    """
    if any(n for state, n in children.items() if state not in TERMINAL):
        return JobState.RUNNING if started else JobState.QUEUED
    if children.get(JobState.CANCELLED) and cancel_requested:
        return JobState.CANCELLED
    if children.get(JobState.SUCCEEDED):
        return JobState.SUCCEEDED
    return JobState.FAILED if children.get(JobState.FAILED) else JobState.CANCELLED


def follow(connection: Connection, sweep_id: str | None) -> None:
    """Move the sweep to where its children put it. Call after the child's row is written."""
    if sweep_id is None:
        return
    # The lock comes first and the count second: of two children that finish at once,
    # the later one must count the earlier.
    sweep = connection.execute(
        select(jobs.c.state, jobs.c.cancel_requested, jobs.c.progress)
        .where(jobs.c.id == sweep_id)
        .with_for_update(key_share=True)
    ).one_or_none()
    if sweep is None:
        return
    children = _children(connection, sweep_id)
    states, started = _states(children), any(child.attempt for child in children)
    now = JobState(sweep.state)
    target = sweep_state(states, started=started, cancel_requested=sweep.cancel_requested)
    if now in TERMINAL and target not in TERMINAL:
        target = JobState.QUEUED  # the one way back; the next claim moves it on
    if now in TERMINAL and target not in NEXT[now]:
        return
    progress = _progress(connection, sweep_id, states, sweep.progress)
    if now is JobState.QUEUED and target in (JobState.SUCCEEDED, JobState.FAILED):
        # Its resumed children were stopped before a claim; the table leads there through running.
        start = move(JobState.RUNNING, leaving={now}).where(jobs.c.id == sweep_id)
        announce(connection, connection.execute(start).one(), JobState.RUNNING)
        now = JobState.RUNNING
    if target in NEXT[now]:
        values: dict[str, Any] = {"progress": progress, "error": None}
        if target is JobState.FAILED:
            values["error"] = _error(connection, sweep_id, states[target])
        elif now in TERMINAL:
            values["cancel_requested"] = False
        leave = move(target, leaving={now}).where(jobs.c.id == sweep_id).values(values)
        announce(connection, connection.execute(leave).one(), target)


def _error(connection: Connection, sweep_id: str, n_failed: int) -> dict[str, Any]:
    errors = connection.execute(
        select(jobs.c.error)
        .where(jobs.c.sweep_id == sweep_id, jobs.c.state == JobState.FAILED)
        .order_by(jobs.c.id)
    ).scalars()
    mine = [(error or {}).get("class") for error in errors]
    fault = FailureClass.USER if set(mine) == {FailureClass.USER} else FailureClass.SYSTEM
    detail = f"{n_failed} jobs of the sweep failed and none succeeded"
    return {"code": "children_failed", "detail": detail, "class": fault}


def _progress(
    connection: Connection,
    sweep_id: str,
    states: Mapping[JobState, int],
    before: Mapping[str, float] | None,
) -> dict[str, Any]:
    done = sum(n for state, n in states.items() if state in TERMINAL)
    progress = {"done": done, "total": sum(states.values()), "unit": "jobs"}
    if done == (before or {}).get("done", 0):
        return progress
    last = connection.execute(
        update(jobs)
        .where(jobs.c.id == sweep_id)
        .values(progress=progress, last_event=jobs.c.last_event + 1)
        .returning(jobs.c.last_event)
    ).scalar_one()
    record(connection, sweep_id, last, [("progress", progress)])
    return progress
