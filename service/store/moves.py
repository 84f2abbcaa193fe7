"""The only place where a job's state is written. Each WHERE on state comes from `service.jobs`.

Lock order, so that no two transactions wait for each other: children by id, then their sweep.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, func, insert, update

from service.columns import epoch_now
from service.jobs import TERMINAL, JobState, sources
from service.store.rows import Claim
from service.store.verdicts import count_verdict
from service.tables import events, jobs

Event = tuple[str, Mapping[str, Any]]
"""Kind and data."""


CLAIMABLE = sources(JobState.RUNNING)
HELD = sources(JobState.SUCCEEDED)
"""Only what a worker holds can succeed."""


_INSERT_EVENT = insert(events)


def owned(claim: Claim) -> ColumnElement[bool]:
    """The fence: true while this very attempt holds the job."""
    return and_(
        jobs.c.id == claim.job_id,
        jobs.c.state.in_(HELD),
        jobs.c.attempt == claim.attempt,
        jobs.c.lease_token == claim.lease_token,
    )


def move(target: JobState, *, leaving: Collection[JobState] | None = None) -> Update:
    """UPDATE into `target`, from every state the table allows, or those of them in `leaving`.

    The caller adds which rows, and passes the returned row to `announce`.
    """
    states = [state for state in sources(target) if leaving is None or state in leaving]
    values: dict[str, Any] = {
        "state": target,
        "last_event": jobs.c.last_event + (2 if target in TERMINAL else 1),
        "phase": None,
    }
    if target is not JobState.RUNNING:
        values |= {"lease_owner": None, "lease_token": None, "lease_expires_at": None}
    if target is JobState.QUEUED:
        values |= {"available_at": epoch_now(), "finished_at": None, "progress": None}
    elif target is JobState.RUNNING:
        values |= {"started_at": func.coalesce(jobs.c.started_at, epoch_now()), "progress": None}
    else:
        values |= {"finished_at": epoch_now()}
    return (
        update(jobs)
        .where(jobs.c.state.in_(states))
        .values(values)
        .returning(
            jobs.c.id,
            jobs.c.sweep_id,
            jobs.c.attempt,
            jobs.c.last_event,
            jobs.c.spec,
            jobs.c.owner,
            jobs.c.type,
            jobs.c.verdict,
        )
    )


def announce(
    connection: Connection, moved: Row[Any], target: JobState, data: Mapping[str, Any] | None = None
) -> None:
    """The `status` event of a move, and after a terminal one the `done` event."""
    status = {"status": target, "attempt": moved.attempt, **(data or {})}
    happened: list[Event] = [("status", status)]
    if target in TERMINAL:
        happened.append(("done", {"status": target}))
        if moved.type == "gate":
            count_verdict(connection, moved.verdict)
    record(connection, moved.id, moved.last_event, happened)


def record(connection: Connection, job_id: str, last: int, happened: Sequence[Event]) -> None:
    """Insert events with the ids ending at `last`, which the caller took from `jobs.last_event`."""
    if happened:
        first = last - len(happened) + 1
        connection.execute(
            _INSERT_EVENT,
            [
                {"job_id": job_id, "id": first + i, "kind": kind, "data": dict(data)}
                for i, (kind, data) in enumerate(happened)
            ],
        )
