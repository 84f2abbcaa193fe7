"""After the child: uploads that nobody wants any more, and a store that is away for a moment.

`stopping` is asked between two chunks of an upload, so it is where the tests act.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.store import JobRow
from tests.worker import small_child
from tests.worker.test_supervise import Bench
from worker.presence import Presence
from worker.tasks import perform


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def uploads(bench: Bench, job_id: str) -> list[str]:
    """Attempts with files in the artifact store."""
    folder = bench.settings.home / "artifacts" / job_id
    return sorted({path.relative_to(folder).parts[0] for path in folder.rglob("*.*")})


def run(bench: Bench, act: Callable[[str], object]) -> JobRow:
    """Runs a job, and acts once, as soon as its upload has begun; a true answer stops the worker"""
    job_id = bench.queue("nothing")
    answers: list[bool] = []

    def stopping() -> bool:
        if not answers and uploads(bench, job_id):
            answers.append(bool(act(job_id)))
        return any(answers)

    presence = Presence(bench.store, "tester", every_seconds=1)
    perform(
        bench.store,
        presence=presence,
        settings=bench.settings,
        stopping=stopping,
        command=small_child.COMMAND,
    )
    assert answers
    return bench.store.job(job_id)


def test_a_stop_during_the_upload_costs_no_failure(bench: Bench) -> None:
    job = run(bench, lambda _: True)
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 0)
    assert uploads(bench, job.id) == []


def test_a_cancel_during_the_upload_is_heard(bench: Bench) -> None:
    def cancel(job_id: str) -> None:
        bench.store.cancel_job(job_id)
        time.sleep(3 * bench.settings.beat_seconds)

    job = run(bench, cancel)
    assert job.state == "cancelled"
    assert uploads(bench, job.id) == []


def test_a_lease_lost_during_the_upload_leaves_nothing_behind(bench: Bench) -> None:
    def take_away(job_id: str) -> None:
        reaped: list[str] = []
        while not reaped:  # a heartbeat between the two renews the lease
            with bench.store.engine.connect() as connection:
                connection.exec_driver_sql("UPDATE jobs SET lease_expires_at = 0")
                connection.commit()
            reaped = bench.store.reap()
        assert reaped == [job_id]
        time.sleep(3 * bench.settings.beat_seconds)

    job = run(bench, take_away)
    assert (job.state, job.attempt, job.artifacts_prefix) == ("succeeded", 2, f"{job.id}/2")
    assert uploads(bench, job.id) == ["2"]


def rename(bench: Bench, old: str, new: str) -> None:
    with bench.store.engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
        connection.commit()


def test_a_store_that_is_away_for_a_moment_costs_no_result(bench: Bench) -> None:
    back = threading.Timer(1.0, rename, [bench, "away", "results"])

    def take_away(_: str) -> None:
        rename(bench, "results", "away")
        back.start()

    job = run(bench, take_away)
    back.join()
    assert (job.state, job.attempt, job.failures) == ("succeeded", 1, 0)
    assert bench.store.result(job.id)["kl"]["value"] == 1.0
    assert uploads(bench, job.id) == ["1"]


def test_a_store_that_stays_away_leaves_no_uploads(bench: Bench) -> None:
    bench.settings.max_failures = 1

    def break_it(_: str) -> None:
        # A fault that waiting does not mend: no artifact may be recorded.
        with bench.store.engine.connect() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON artifacts "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
            connection.commit()

    job = run(bench, break_it)
    assert (job.state, job.failures) == ("failed", 1)
    assert uploads(bench, job.id) == []
