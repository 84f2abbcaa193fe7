"""What the single faults do where the mechanism that answers them is switched off."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from service.broker import QUEUE, TASK, celery_app
from tests.chaos.parts import until
from tests.chaos.test_single_faults import hold, holder, submit
from tests.chaos.town import LEASE_SECONDS, Town, town


@pytest.fixture(scope="module")
def unswept() -> Iterator[Town]:
    """Nobody reaps, and nobody rings again."""
    with town("sqlite", FORGETTING_SWEEP_SECONDS="3600") as running:
        until(lambda: len(running.store.living_workers()) == len(running.workers), 60, "workers")
        yield running


def test_a_ring_that_was_never_sent_leaves_its_job_waiting(unswept: Town) -> None:
    unswept.redis.send(signal.SIGSTOP)
    try:
        job_id = submit(unswept)
        unswept.services[0].send(signal.SIGKILL)
    finally:
        unswept.redis.send(signal.SIGCONT)
    time.sleep(2 * LEASE_SECONDS)
    assert unswept.store.job(job_id).state == "queued"
    unswept.store.cancel_job(job_id)


def test_a_killed_worker_leaves_its_job_running_for_ever(unswept: Town) -> None:
    flag = hold(unswept)
    job_id = submit(unswept, "hold", service=1)
    holder(unswept, job_id).send(signal.SIGKILL)
    time.sleep(2 * LEASE_SECONDS)
    flag.unlink()
    job = unswept.store.job(job_id)
    assert (job.state, job.attempt) == ("running", 1)


def test_a_lease_that_outlasts_the_fault_lets_the_child_live() -> None:
    """The child of the last single fault ends because its lease does, not by the fault itself."""
    with town("sqlite", FORGETTING_LEASE_SECONDS="60") as place:
        flag = hold(place)
        job_id = submit(place, "hold")
        worker = holder(place, job_id)
        until(worker.children, 30, "a child")
        [child] = worker.children()
        with place.database_away():
            time.sleep(2 * LEASE_SECONDS)
        flag.unlink()
        until(lambda: place.store.job(job_id).state == "succeeded", 60, "the end")
        assert place.store.job(job_id).attempt == 1
        assert not child.is_running()


def test_a_ring_inside_the_request_would_wait_for_a_frozen_broker(unswept: Town) -> None:
    """What every submission would do, were its ring not sent by a thread."""
    app = celery_app(unswept.redis_url)
    until(lambda: app.send_task(TASK, kwargs={"job_id": "none"}, queue=QUEUE), 10, "a ring")
    unswept.redis.send(signal.SIGSTOP)
    ring = threading.Thread(
        target=_ring_and_forget, args=(app,), daemon=True, name="a request that rings"
    )
    ring.start()
    try:
        ring.join(2)
        assert ring.is_alive()
    finally:
        unswept.redis.send(signal.SIGCONT)
        ring.join(30)
        app.close()


def _ring_and_forget(app: Celery) -> None:
    with contextlib.suppress(OperationalError):
        app.send_task(TASK, kwargs={"job_id": "none"}, queue=QUEUE, retry=False)
