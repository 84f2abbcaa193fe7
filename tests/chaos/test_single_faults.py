"""One fault at a time, on a whole set-up, on both databases. Controls stand in the next file."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from service.broker import QUEUE, TASK, celery_app
from service.jobs import TERMINAL
from service.store import JobRow
from tests.chaos.child import PHASES
from tests.chaos.parts import until
from tests.chaos.town import LEASE_SECONDS, Town, answers, town
from tests.e2e.house import finetune


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Iterator[Town]:
    with town(request.param) as running:
        until(lambda: len(running.store.living_workers()) == len(running.workers), 60, "workers")
        yield running


def submit(place: Town, deed: str = "nothing", *, service: int = 0, seconds: float = 5) -> str:
    """Answered within `seconds`, whatever is frozen or gone behind the service."""
    url = f"{place.urls[service]}/jobs"
    answer = httpx2.post(url, json=finetune(metadata={"deed": deed}), timeout=seconds)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def ends(place: Town, *ids: str) -> list[JobRow]:
    until(lambda: all(place.store.job(i).state in TERMINAL for i in ids), 60, "the end of jobs")
    return [place.store.job(job_id) for job_id in ids]


def hold(place: Town) -> Any:
    """Jobs with the deed `hold` run until this is unlinked."""
    flag = place.folder / "hold"
    flag.touch()
    return flag


def running(place: Town, job_id: str) -> None:
    until(lambda: place.store.job(job_id).state == "running", 30, f"{job_id} running")


def holder(place: Town, job_id: str) -> Any:
    """The worker that is busy with the job."""
    found = []

    def look() -> bool:
        busy = [w for w in place.store.living_workers() if w.job_id == job_id]
        found[:] = [part for w in busy for part in place.workers if part.pid == w.info["pid"]]
        return bool(found)

    until(look, 30, f"a worker at {job_id}")
    return found[0]


def once(place: Town, *jobs: JobRow) -> None:
    """Each succeeded, ended once, and left one law point."""
    groups = place.store.points()
    for job in jobs:
        assert job.state == "succeeded", job.error
        assert [e.kind for e in place.store.events(job.id)].count("done") == 1
        assert [p["run"] for g in groups for p in g.points].count(job.id) == 1


def test_a_service_killed_between_commit_and_ring(place: Town) -> None:
    place.redis.send(signal.SIGSTOP)
    try:
        job_id = submit(place)
        place.services[0].send(signal.SIGKILL)
    finally:
        place.redis.send(signal.SIGCONT)
    once(place, *ends(place, job_id))
    until(lambda: answers(place.urls[0]), 30, "the service is back")


def test_every_ring_comes_five_times(place: Town) -> None:
    app = celery_app(place.redis_url)
    ids = [submit(place) for _ in range(4)]
    for job_id in ids:
        for _ in range(5):
            app.send_task(TASK, kwargs={"job_id": job_id}, queue=QUEUE, retry=False)
    app.close()
    jobs = ends(place, *ids)
    once(place, *jobs)
    assert [job.attempt for job in jobs] == [1] * len(ids)


def test_a_broker_that_starts_again_has_forgotten_and_nothing_is_lost(place: Town) -> None:
    flag = hold(place)
    ids = [submit(place, "hold") for _ in range(2 * len(place.workers))]
    place.redis.send(signal.SIGKILL)
    flag.unlink()
    jobs = ends(place, *ids)
    once(place, *jobs)
    assert [job.failures for job in jobs] == [0] * len(ids)


def test_submissions_are_answered_while_the_broker_is_frozen(place: Town) -> None:
    place.redis.send(signal.SIGSTOP)
    try:
        ids = [submit(place, seconds=2) for _ in range(5)]
    finally:
        place.redis.send(signal.SIGCONT)
    once(place, *ends(place, *ids))


def test_two_services_that_sweep_take_a_lost_job_away_once(place: Town) -> None:
    flag = hold(place)
    job_id = submit(place, "hold")
    holder(place, job_id).send(signal.SIGKILL)
    until(lambda: place.store.job(job_id).attempt == 2, 60, "the second attempt")
    flag.unlink()
    [job] = ends(place, job_id)
    once(place, job)
    assert (job.attempt, job.failures) == (2, 1)


def test_a_worker_killed_in_each_phase_costs_one_attempt_each(place: Town) -> None:
    flags = [place.folder / f"hold-{phase}" for phase in PHASES]
    for flag in flags:
        flag.touch()
    job_id = submit(place, "hold")
    for n, (phase, flag) in enumerate(zip(PHASES, flags, strict=True), start=1):
        until(lambda n=n: place.store.job(job_id).attempt == n, 60, f"attempt {n}")
        until(lambda phase=phase: place.store.job(job_id).phase == phase, 60, phase)
        holder(place, job_id).send(signal.SIGKILL)
        until(lambda n=n: place.store.job(job_id).attempt == n + 1, 60, f"attempt {n + 1}")
        flag.unlink()
    [job] = ends(place, job_id)
    once(place, job)
    assert (job.attempt, job.failures) == (len(PHASES) + 1, len(PHASES))


def test_a_worker_frozen_beyond_its_lease_changes_nothing_when_it_wakes(place: Town) -> None:
    flag = hold(place)
    job_id = submit(place, "hold")
    zombie = holder(place, job_id)
    zombie.send(signal.SIGSTOP)
    try:
        until(lambda: place.store.job(job_id).attempt == 2, 60, "the second attempt")
        flag.unlink()
        [job] = ends(place, job_id)
        before = place.store.result(job_id), place.store.events(job_id)
    finally:
        zombie.send(signal.SIGCONT)
    until(lambda: "lease lost" in place.logs(), 30, "the zombie hears of it")
    once(place, job)
    assert (place.store.result(job_id), place.store.events(job_id)) == before


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)  # SQLite has no process
def test_a_database_that_crashes_comes_back_to_the_same_jobs(place: Town) -> None:
    assert place.database is not None
    flag = hold(place)
    ids = [submit(place, "hold") for _ in range(4)]
    running(place, ids[0])
    place.database.send(signal.SIGQUIT)
    flag.unlink()
    once(place, *ends(place, *ids))


def test_a_database_that_is_away_for_two_leases_ends_the_child(place: Town) -> None:
    """By the worker's own clock: nobody can tell it that its lease is over."""
    flag = hold(place)
    job_id = submit(place, "hold")
    worker = holder(place, job_id)
    until(worker.children, 30, "a child")
    [child] = worker.children()
    with place.database_away():
        until(lambda: not child.is_running() or child.status() == "zombie", 30, "the child's end")
        time.sleep(LEASE_SECONDS)
    flag.unlink()
    [job] = ends(place, job_id)
    once(place, job)
    assert job.attempt >= 2
