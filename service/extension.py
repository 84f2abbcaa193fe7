"""From a pilot to the rest of its sweep."""

from service.admission import admit
from service.errors import InvalidSpec, NotFinished
from service.jobs import TERMINAL, JobState
from service.keys import Caller
from service.pilot import rest_of
from service.quota import require_affordable
from service.schemas.spec import FinetuneSpec, SweepSpec
from service.settings import Settings
from service.store import JobRow, Store


def extend(store: Store, settings: Settings, job_id: str, caller: Caller) -> tuple[JobRow, bool]:
    """Queue what the pilot's whole sweep has yet to measure, as a sweep that points back at it.

    True: that was done before; a pilot has one extension. Runs of the pilot that failed are among
    what is queued. Raises NotFound, InvalidSpec where it is no pilot, NotFinished where it is not
    at rest, QuotaExceeded, and what `admit` does.
    """
    job = store.job(job_id)
    if job.type != "sweep" or not job.spec["pilot"]:
        raise InvalidSpec(f"{job_id} is no pilot; only those are extended", param="job_id")
    earlier = store.extension_of(job_id)
    if earlier is not None:
        return store.job(earlier), True
    if job.state not in TERMINAL:
        raise NotFinished(
            f"{job_id} is {job.state}; a pilot is extended once it has ended", status=job.state
        )
    whole = SweepSpec.model_validate(job.spec | {"pilot": False})
    admit(whole, settings, jobs=store)
    require_affordable(whole, caller, settings)
    done = [
        FinetuneSpec.model_validate(child.spec)
        for child in store.child_rows(job_id)
        if child.state is JobState.SUCCEEDED
    ]
    return store.add_extension(job_id, whole, rest_of(whole, done), owner=job.owner or "")
