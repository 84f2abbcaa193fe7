"""A worker process that is killed or frozen: no orphan, no second result."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.worker.test_supervise import Bench, alive, eventually

ROOT = Path(__file__).parent.parent.parent
WORK = (
    "import pathlib, sys; from tests.worker.test_supervise import Bench;"
    "bench = Bench(pathlib.Path(sys.argv[1])); bench.work(); bench.store.dispose()"
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def worker(bench: Bench, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(bench.settings.home)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )


def family_of_a_killed_worker(bench: Bench, **environment: str) -> list[int]:
    job_id = bench.queue("bear", "wait")
    process = worker(bench, **environment)
    eventually(lambda: bench.pid(job_id, "born") is not None)
    pids = [bench.pid(job_id), bench.pid(job_id, "born")]
    process.kill()
    process.wait()
    return [pid for pid in pids if pid is not None]


def test_a_killed_worker_leaves_no_child(bench: Bench) -> None:
    pids = family_of_a_killed_worker(bench)
    assert len(pids) == 2
    eventually(lambda: not any(alive(pid) for pid in pids), seconds=5)


def test_a_child_that_does_not_watch_its_lifeline_is_left(bench: Bench) -> None:
    pids = family_of_a_killed_worker(bench, SMALL_CHILD_IS_DEAF="1")
    try:
        time.sleep(2)
        assert all(alive(pid) for pid in pids)
    finally:
        for pid in pids:
            psutil.Process(pid).kill()


def test_a_frozen_worker_comes_back_to_a_job_that_is_no_longer_its_own(bench: Bench) -> None:
    job_id = bench.queue("nap")
    zombie = worker(bench)
    try:
        eventually(lambda: bench.pid(job_id) is not None)
        zombie.send_signal(signal.SIGSTOP)
        eventually(lambda: bench.store.reap() == [job_id])
        assert bench.work() == 1
        assert bench.store.job(job_id).state == "succeeded"
        before = bench.store.result(job_id), bench.store.events(job_id)
    finally:
        zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(20) == 0
    assert (bench.store.result(job_id), bench.store.events(job_id)) == before
    job = bench.store.job(job_id)
    assert (job.attempt, job.failures, job.artifacts_prefix) == (2, 1, f"{job_id}/2")
    published = bench.settings.home / "artifacts" / job_id
    assert [path.name for path in published.iterdir()] == ["2"]
