"""Cancel and resume: what a person does to a job's state."""

from collections.abc import Collection

from sqlalchemy import Connection, select, update

from service.errors import NotResumable
from service.jobs import RESUMABLE, TERMINAL, JobState, sources
from service.store.database import Database
from service.store.jobs import read_job
from service.store.moves import CLAIMABLE, HELD, announce, move, record
from service.store.room import require_room
from service.store.rows import JobRow
from service.store.sweeps import follow
from service.tables import extensions, jobs

STOPPABLE = sources(JobState.CANCELLED)


class Stops(Database):
    def cancel_job(self, job_id: str) -> JobRow:
        """Stop a queued job at once, ask a running one to stop, a sweep through its children.

        A finished job stays as it is. Raises NotFound.
        """
        with self._write() as connection:
            job = read_job(connection, job_id)
            if job.type == "sweep":
                for child in _lock(connection, job_id, STOPPABLE):
                    _stop(connection, child)
                _flag(connection, job_id, STOPPABLE)
                follow(connection, job_id)
            else:
                _stop(connection, job_id)
                follow(connection, job.sweep_id)
            return read_job(connection, job_id)

    def resume_job(self, job_id: str) -> JobRow:
        """Queue a failed or cancelled job again, with a fresh budget of failures.

        A sweep at rest, however it ended, resumes its failed and cancelled children; a child
        takes its sweep along. Not those of an extended pilot: its extension runs them.
        Raises NotFound, NotResumable, TooManyJobs.
        """
        with self._write() as connection:
            job = read_job(connection, job_id)
            if job.type == "sweep":
                again = _lock(connection, job_id, RESUMABLE) if job.state in TERMINAL else []
                sweep_id: str | None = job_id
            else:
                again, sweep_id = [job_id], job.sweep_id
            made = select(extensions.c.sweep_id).where(extensions.c.pilot_id == sweep_id)
            onward = connection.execute(made).scalar_one_or_none()
            if onward is not None:
                raise NotResumable(f"{onward} goes on from {sweep_id}: resume that", job=onward)
            resumed = [child for child in again if _resume(connection, child)]
            if not resumed:
                state = read_job(connection, job_id).state
                raise NotResumable(
                    f"{job_id} is {state}; only failed and cancelled jobs resume, and an ended "
                    "sweep that has such children",
                    status=state,
                )
            require_room(connection)
            follow(connection, sweep_id)
            return read_job(connection, job_id)


def _lock(connection: Connection, sweep_id: str, states: Collection[JobState]) -> list[str]:
    """Ids of the sweep's children in `states`, locked in order."""
    rows = connection.execute(
        select(jobs.c.id)
        .where(jobs.c.sweep_id == sweep_id, jobs.c.state.in_(sorted(states)))
        .order_by(jobs.c.id)
        .with_for_update(key_share=True)
    )
    return list(rows.scalars())


def _stop(connection: Connection, job_id: str) -> None:
    # Locked first: between two looks a queued job may start and a running one be released.
    connection.execute(select(jobs.c.id).where(jobs.c.id == job_id).with_for_update(key_share=True))
    stopped = connection.execute(
        move(JobState.CANCELLED, leaving=CLAIMABLE)
        .where(jobs.c.id == job_id)
        .values(cancel_requested=True)
    ).one_or_none()
    if stopped is not None:
        announce(connection, stopped, JobState.CANCELLED)
    else:
        _flag(connection, job_id, HELD)


def _flag(connection: Connection, job_id: str, states: Collection[JobState]) -> None:
    """Note the wish to stop; a running job's worker learns of it with the next beat."""
    flagged = connection.execute(
        update(jobs)
        .where(
            jobs.c.id == job_id,
            jobs.c.state.in_(sorted(states)),
            jobs.c.cancel_requested.is_(False),
        )
        .values(cancel_requested=True, last_event=jobs.c.last_event + 1)
        .returning(jobs.c.state, jobs.c.last_event, jobs.c.attempt)
    ).one_or_none()
    if flagged is not None:
        status = {
            "status": flagged.state,
            "attempt": flagged.attempt,
            "cancel_requested": True,
        }
        record(connection, job_id, flagged.last_event, [("status", status)])


def _resume(connection: Connection, job_id: str) -> bool:
    resumed = connection.execute(
        move(JobState.QUEUED, leaving=RESUMABLE)
        .where(jobs.c.id == job_id)
        .values(failures=0, error=None, cancel_requested=False)
    ).one_or_none()
    if resumed is None:
        return False
    announce(connection, resumed, JobState.QUEUED, {"reason": "resumed"})
    return True
