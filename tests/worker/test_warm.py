"""A child that stays for the next job of its base. Store, processes and signals are real."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.schemas.spec import EvaluateSpec
from tests.worker import small_child
from tests.worker.test_supervise import Bench, alive, eventually
from worker.idle import Idle
from worker.presence import Presence
from worker.tasks import perform


class Warm(Bench):
    """A worker that keeps its children for `seconds`."""

    seconds = 60.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.idle = Idle(self.seconds)

    def evaluate(self, *deeds: str, model: str = "none") -> str:
        body: dict[str, Any] = {
            "type": "evaluate",
            "base_model": model,
            "adapters": [{"path": "theirs"}],
            "metadata": {"does": " ".join(deeds)},
        }
        return self.store.add_job(EvaluateSpec.model_validate(body))[0].id

    def work(self) -> int:
        return perform(
            self.store,
            presence=Presence(self.store, "tester", every_seconds=1),
            settings=self.settings,
            stopping=self.stop.is_set,
            command=small_child.COMMAND,
            idle=self.idle,
        )

    def pid_of(self, *deeds: str, model: str = "none") -> int:
        """Of the child that did it."""
        job_id = self.evaluate(*deeds, model=model)
        self.work()
        pid = self.pid(job_id)
        assert pid is not None
        return pid


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    warm = Warm(tmp_path)
    yield warm
    warm.idle.end()
    warm.store.dispose()


def test_jobs_of_one_base_share_a_child(warm: Warm) -> None:
    ids = [warm.evaluate("nothing") for _ in range(3)]
    assert warm.work() == 3
    pids = {warm.pid(job_id) for job_id in ids}
    assert len(pids) == 1
    assert {warm.store.job(job_id).state for job_id in ids} == {"succeeded"}
    assert {warm.store.job(job_id).attempt for job_id in ids} == {1}
    # and the one that comes later, when the worker was asked anew
    assert {warm.pid_of("nothing")} == pids


def test_without_warmth_every_job_has_its_own_child(warm: Warm) -> None:
    warm.idle.seconds = 0.0
    pids = {warm.pid_of("nothing") for _ in range(2)}
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_another_base_or_a_training_ends_the_child(warm: Warm) -> None:
    first = warm.pid_of("nothing")
    second = warm.pid_of("nothing", model="other")
    assert first != second
    assert not alive(first)
    warm.run("nothing")  # a finetune
    assert not alive(second)


def test_an_idle_child_goes_when_its_time_is_up(warm: Warm) -> None:
    warm.idle.seconds = 0.2
    pid = warm.pid_of("nothing")
    eventually(lambda: not alive(pid))


@pytest.mark.parametrize("deed", ["blame_user", "break", "exhaust", "die_killed", "fill_disk"])
def test_a_fault_ends_the_child_and_the_next_job_begins_afresh(warm: Warm, deed: str) -> None:
    first = warm.pid_of("nothing")
    faulty = warm.evaluate(deed)
    warm.work()
    assert warm.pid(faulty) == first or deed == "die_killed"
    assert not alive(first)
    job_id = warm.evaluate("nothing")
    warm.work()
    assert warm.store.job(job_id).state == "succeeded"
    assert warm.pid(job_id) != first


def test_a_child_that_died_in_its_sleep_costs_nobody_an_attempt(warm: Warm) -> None:
    pid = warm.pid_of("nothing")
    os.kill(pid, signal.SIGKILL)
    job_id = warm.evaluate("nothing")
    warm.work()
    job = warm.store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 1, 0)


def test_a_child_told_to_stop_in_its_sleep_ends(warm: Warm) -> None:
    pid = warm.pid_of("nothing")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid))
    job_id = warm.evaluate("nothing")
    warm.work()
    assert warm.store.job(job_id).failures == 0


def test_cancel_reaches_a_warm_child(warm: Warm) -> None:
    first = warm.pid_of("nothing")
    job_id = warm.evaluate("wait")

    def cancel() -> None:
        eventually(lambda: warm.pid(job_id) is not None)
        warm.store.cancel_job(job_id)

    thread = threading.Thread(target=cancel)
    thread.start()
    warm.work()
    thread.join()
    assert warm.store.job(job_id).state == "cancelled"
    assert not alive(first)


def test_prints_go_to_the_log_of_the_job_that_printed(warm: Warm) -> None:
    warm.pid_of("nothing")
    job_id = warm.evaluate("chatter", "break")
    warm.work()
    error = warm.store.job(job_id).error
    assert error is not None
    assert "a fault of our own" in error["details"]["log_tail"]
    assert "not json" in error["details"]["log_tail"]


def test_a_worker_that_leaves_ends_its_idle_child(warm: Warm) -> None:
    pid = warm.pid_of("nothing")
    warm.idle.end()
    assert not alive(pid)
