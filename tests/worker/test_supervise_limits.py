"""A child that hangs, a disk without room, a child that always dies: each has its end."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.test_supervise import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def test_a_child_that_hangs_is_ended_though_its_worker_beats(bench: Bench) -> None:
    bench.settings.stall_seconds = 0.5
    job = bench.run("ignore_everything")
    assert (job.state, job.failures) == ("failed", 2)  # as often as the budget allows
    assert job.error is not None
    assert job.error["code"] == "stalled"
    assert "FORGETTING_STALL_SECONDS" in job.error["detail"]


def test_without_the_limit_it_would_hang_on(bench: Bench) -> None:
    """Control: the same child is still at it when the same time has passed."""
    bench.settings.job_time_limit_seconds = 3.0
    job = bench.run("ignore_everything")
    assert job.error is not None
    assert job.error["code"] == "time_limit"


def test_no_attempt_begins_on_a_disk_without_room(bench: Bench) -> None:
    bench.settings.min_free_bytes = shutil.disk_usage(bench.settings.home).free * 2
    job = bench.run("nothing")
    assert (job.state, job.failures) == ("queued", 0)
    assert bench.pid(job.id) is None
    said = [
        event.data["message"] for event in bench.store.events(job.id) if event.kind == "warning"
    ]
    assert said == ["the worker's disk is full; the next attempt begins in 60 s"]


def test_a_poison_job_ends_with_its_budget_and_not_before(bench: Bench) -> None:
    job = bench.run("die_killed")
    assert (job.state, job.attempt, job.failures) == ("failed", 2, 2)
    bench.store.settings.max_failures = 4  # control: it is the budget that ends it
    job = bench.run("die_killed")
    assert (job.state, job.attempt, job.failures) == ("failed", 4, 4)
