"""What is promised when something dies: one recorded result, and nothing left running."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.e2e.house import House, house

LONG = 150


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("home")) as running:
        yield running


def kill_worker(home: House) -> psutil.Process:
    """SIGKILL to the Celery process; its child, so that it can be watched, comes back."""
    celery, child = home.find("--one"), home.find("worker.run")
    assert celery is not None
    assert child is not None
    celery.kill()
    return child


def test_a_finetune_goes_through_the_whole_set_up(home: House) -> None:
    job_id = home.submit()
    job = home.ends(job_id)
    assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 1, 0), job["error"]
    result = home.client.get(f"/jobs/{job_id}/result").json()
    assert result["kl"]["value"] > 0
    [checkpoint] = result["checkpoints"]
    names = {a["name"] for a in home.client.get(f"/jobs/{job_id}/artifacts").json()["data"]}
    assert f"{checkpoint['adapter']}/adapter_model.safetensors" in names


def test_a_killed_worker_costs_one_attempt_and_no_result(home: House) -> None:
    job_id = home.submit(max_steps=LONG)
    reached = home.sealed(job_id)
    orphan = kill_worker(home)
    assert psutil.wait_procs([orphan], timeout=5)[1] == []
    job = home.ends(job_id)
    assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 2, 1), job["error"]
    [step] = home.resumed(job_id)
    assert step >= reached > 0
    result = home.client.get(f"/jobs/{job_id}/result").json()
    assert [checkpoint["step"] for checkpoint in result["checkpoints"]] == [LONG]


def test_without_the_sweep_the_same_faults_strand_their_jobs(tmp_path: Path) -> None:
    with house(tmp_path, FORGETTING_SWEEP_SECONDS="3600") as home:
        home.until(lambda: home.client.get("/readyz").status_code == 200)
        lost = submit_and_lose_the_ring(home)
        time.sleep(5)
        assert home.job(lost)["status"] == "queued"
        home.client.post(f"/jobs/{lost}/cancel")
        job_id = home.submit(max_steps=LONG)
        home.sealed(job_id)
        kill_worker(home)
        home.until(lambda: home.find("--one"))
        time.sleep(12)
        job = home.job(job_id)
        assert (job["status"], job["attempt"]) == ("running", 1)


def test_cancel_of_a_running_job_frees_the_worker_and_resume_goes_on(home: House) -> None:
    job_id = home.submit(max_steps=LONG)
    reached = home.sealed(job_id)
    waiting = home.submit(max_steps=LONG)
    home.client.post(f"/jobs/{waiting}/cancel")
    assert home.job(waiting)["status"] == "cancelled"
    asked = time.monotonic()
    home.client.post(f"/jobs/{job_id}/cancel")
    assert home.ends(job_id)["status"] == "cancelled"
    home.until(lambda: home.find("worker.run") is None)
    assert time.monotonic() - asked < 5
    home.client.post(f"/jobs/{job_id}/resume")
    job = home.ends(job_id)
    assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 2, 0), job["error"]
    [step] = home.resumed(job_id)
    assert step >= reached > 0


def test_sigterm_releases_the_job_and_counts_no_failure(home: House) -> None:
    job_id = home.submit(max_steps=LONG)
    reached = home.sealed(job_id)
    celery = home.find("--one")
    assert celery is not None
    celery.send_signal(signal.SIGTERM)
    job = home.ends(job_id)
    assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 2, 0), job["error"]
    [step] = home.resumed(job_id)
    assert step >= reached > 0


def test_a_flushed_broker_loses_no_job(home: House) -> None:
    job_id = submit_and_lose_the_ring(home)
    job = home.ends(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1), job["error"]


def test_a_flushed_broker_loses_no_job_behind_another(home: House) -> None:
    ids = [home.submit(max_steps=step) for step in (30, 2)]
    home.until(lambda: home.find("worker.run"))
    flush(home)
    for job_id in ids:
        job = home.ends(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 1), job["error"]


def submit_and_lose_the_ring(home: House) -> str:
    celery = home.until(lambda: home.find("--one"))
    celery.suspend()
    try:
        time.sleep(2)  # its pending read of the queue, which could still take the ring, ends
        job_id = home.submit(max_steps=2)
        time.sleep(1)
        flush(home)
    finally:
        celery.resume()
    return job_id


def flush(home: House) -> None:
    celery = home.find("--one")
    assert celery is not None
    with redis.Redis.from_url(celery.environ()["FORGETTING_REDIS_URL"]) as client:
        client.flushall()
