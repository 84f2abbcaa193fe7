"""Whether an owner has room for more jobs."""

from sqlalchemy import Connection, func, select

from service.errors import TooManyJobs
from service.jobs import TERMINAL, JobState
from service.store.access import access_of
from service.tables import jobs


def require_room(connection: Connection) -> None:
    """Called once the new jobs are in, so that a replay is never refused. Raises TooManyJobs.

    On PostgreSQL those who ask at the same moment may each be the last that fits.
    """
    access = access_of(connection)
    if access.max_jobs is None:
        return
    waiting = [state for state in JobState if state not in TERMINAL]
    query = select(func.count()).where(
        jobs.c.owner == access.owner, jobs.c.state.in_(waiting), jobs.c.type != "sweep"
    )
    n_jobs = connection.execute(query).scalar_one()
    if n_jobs > access.max_jobs:
        raise TooManyJobs(
            f"{n_jobs} jobs would be queued or running; this owner may have {access.max_jobs}",
            jobs=n_jobs,
            max_jobs=access.max_jobs,
        )
