"""One attempt, its child and its ends. The store, the processes and the signals are real."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from service.store import JobRow, Store
from tests.worker import small_child
from worker.presence import Presence
from worker.tasks import disk_full_pause, perform


class Bench:
    """A store, and a worker that runs what is queued in it with the small child."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            home=folder,
            database_url=f"sqlite:///{folder / 'test.sqlite3'}",
            lease_seconds=3,
            beat_seconds=0.2,
            grace_seconds=0.5,
            max_failures=2,
        )
        self.store = Store(self.settings.database, self.settings)
        self.store.migrate()
        self.stop = threading.Event()

    def queue(self, *deeds: str) -> str:
        spec = FinetuneSpec.model_validate(
            {
                "base_model": "none",
                "dataset": {"path": "none"},
                "metadata": {"does": " ".join(deeds)},
            }
        )
        return self.store.add_job(spec)[0].id

    def work(self) -> int:
        presence = Presence(self.store, "tester", every_seconds=1)
        return perform(
            self.store,
            presence=presence,
            settings=self.settings,
            stopping=self.stop.is_set,
            command=small_child.COMMAND,
        )

    def run(self, *deeds: str) -> JobRow:
        job_id = self.queue(*deeds)
        self.work()
        return self.store.job(job_id)

    def logs(self, job_id: str) -> list[dict[str, Any]]:
        return [event.data for event in self.store.events(job_id) if event.kind == "log"]

    def pid(self, job_id: str, message: str = "started") -> int | None:
        pids = [log["pid"] for log in self.logs(job_id) if log["message"] == message]
        return pids[-1] if pids else None

    def during(self, act: Callable[[str], object], *deeds: str) -> tuple[JobRow, float]:
        """Runs the deeds, acts as soon as the child has said that it started; seconds after it."""
        job_id = self.queue(*deeds)
        acted: list[float] = []

        def watch() -> None:
            eventually(lambda: self.pid(job_id) is not None)
            acted.append(time.monotonic())
            act(job_id)

        thread = threading.Thread(target=watch)
        thread.start()
        self.work()
        thread.join()
        return self.store.job(job_id), time.monotonic() - acted[0]


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def test_a_job_succeeds_with_result_artifacts_and_a_tidy_home(bench: Bench) -> None:
    job = bench.run("nothing")
    assert (job.state, job.attempt, job.failures) == ("succeeded", 1, 0)
    assert bench.store.result(job.id)["kl"]["value"] == 1.0
    [artifact] = bench.store.artifacts(job.id)
    assert (artifact["name"], artifact["bytes"]) == ("deep/kept.txt", 4)
    published = bench.settings.home / "artifacts" / f"{job.artifacts_prefix}" / "deep" / "kept.txt"
    assert published.read_text() == "kept"
    assert list((bench.settings.home / "work").iterdir()) == []


def test_every_queued_job_runs_oldest_first_whichever_rang(bench: Bench) -> None:
    ids = [bench.queue("nothing") for _ in range(3)]
    assert bench.work() == 3
    started = [bench.store.job(job_id).started_at for job_id in ids]
    assert started == sorted(started)


def test_prints_do_not_pass_for_events(bench: Bench) -> None:
    job = bench.run("chatter")
    assert job.state == "succeeded"
    [loss] = bench.store.metrics(job.id)["train_loss"]
    assert loss.value is None
    progress = [e for e in bench.store.events(job.id) if e.kind == "progress"]
    assert progress[-1].data["done"] == 299


def test_a_users_fault_names_the_field_and_is_not_retried(bench: Bench) -> None:
    job = bench.run("blame_user")
    assert (job.state, job.attempt) == ("failed", 1)
    assert job.error == {
        "code": "dataset_unreadable",
        "class": "user",
        "detail": "line 3 is torn",
        "param": "dataset.path",
        "details": {"line": 3},
    }


@pytest.mark.parametrize(
    ("deed", "code", "attempts"),
    [
        ("die_killed", "out_of_memory_or_killed", 2),
        ("die_crashed", "worker_crashed", 2),
        ("exhaust", "out_of_memory", 1),
        ("miss_the_hub", "system_fault", 2),
        ("break", "internal_error", 1),
    ],
)
def test_a_childs_death_is_the_systems_fault(
    bench: Bench, deed: str, code: str, attempts: int
) -> None:
    job = bench.run(deed)
    assert (job.state, job.attempt) == ("failed", attempts)
    assert job.error is not None
    assert (job.error["code"], job.error["class"]) == (code, "system")
    assert job.error.keys() == {"code", "class", "detail", "param", "details"}


def test_the_log_tells_why_the_child_died(bench: Bench) -> None:
    error = bench.run("break").error
    assert error is not None
    assert error["detail"] == "ZeroDivisionError: a fault of our own"
    assert "Traceback" in error["details"]["log_tail"]


def test_a_job_survives_one_killed_child(bench: Bench) -> None:
    job = bench.run("die_once")
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 1)


def test_a_full_disk_puts_the_job_off_and_costs_no_failure(bench: Bench) -> None:
    job = bench.run("fill_disk")
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 0)
    assert bench.work() == 0
    events = bench.store.events(job.id)
    assert [e.data["reason"] for e in events if e.data.get("reason")] == ["disk_full"]
    [warning] = [e.data["message"] for e in events if e.kind == "warning"]
    assert "disk is full" in warning


def test_the_pause_of_a_full_disk_doubles_up_to_an_hour() -> None:
    assert [disk_full_pause(n) for n in (1, 2, 3, 7, 5000)] == [60, 120, 240, 3600, 3600]


def test_a_child_is_heard_before_its_imports(bench: Bench) -> None:
    job = bench.run("nothing")
    phases = [e.data["phase"] for e in bench.store.events(job.id) if e.kind == "phase"]
    assert phases == ["loading", "training"]


@pytest.mark.parametrize("deed", ["wait", "ignore_everything"])
def test_cancel_frees_the_worker_within_seconds(bench: Bench, deed: str) -> None:
    job, seconds = bench.during(bench.store.cancel_job, deed)
    assert job.state == "cancelled"
    assert seconds < 5


def test_the_whole_family_of_a_child_ends_with_it(bench: Bench) -> None:
    job, _ = bench.during(bench.store.cancel_job, "bear", "wait")
    offspring = bench.pid(job.id, "born")
    assert offspring is not None
    eventually(lambda: not alive(offspring))


def test_a_stopping_worker_releases_its_job_without_a_failure(bench: Bench) -> None:
    job, _ = bench.during(lambda _: bench.stop.set(), "wait")
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 0)


def test_a_child_that_will_not_stop_is_released_all_the_same(bench: Bench) -> None:
    job, seconds = bench.during(lambda _: bench.stop.set(), "ignore_everything")
    assert (job.state, job.failures) == ("queued", 0)
    assert seconds < 5


def test_the_time_limit_fails_the_job(bench: Bench) -> None:
    bench.settings.job_time_limit_seconds = 1.0
    job = bench.run("wait")
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "time_limit"


def test_a_lost_lease_ends_the_child_and_changes_nothing(bench: Bench) -> None:
    bench.settings.max_failures = 1

    def take_away(job_id: str) -> None:
        # What a reaper does to a worker that was frozen for longer than its lease.
        with bench.store.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE jobs SET lease_expires_at = 0")
            connection.commit()
        assert bench.store.reap() == [job_id]

    job, seconds = bench.during(take_away, "bear", "wait")
    assert job.error is not None
    assert (job.state, job.error["code"]) == ("failed", "worker_lost")
    assert seconds < 3
    pid, offspring = bench.pid(job.id), bench.pid(job.id, "born")
    assert pid is not None
    assert not alive(pid)
    assert offspring is None or not alive(offspring)


def alive(pid: int) -> bool:
    """A zombie, which waits for its reaper only, is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_does_not_see_keys_and_addresses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORGETTING_API_KEY", "FORGETTING_ARTIFACTS_URL", "FORGETTING_KEY_PEPPER"):
        monkeypatch.setenv(name, "a-planted-secret")
    seen: list[dict[str, str]] = []

    def look(job_id: str) -> None:
        pid = bench.pid(job_id)
        assert pid is not None
        seen.append(psutil.Process(pid).environ())
        bench.store.cancel_job(job_id)

    bench.during(look, "wait")
    assert os.environ["FORGETTING_API_KEY"] == "a-planted-secret"
    assert "a-planted-secret" not in seen[0].values()
