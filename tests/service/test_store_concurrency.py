"""Many workers, in threads and processes, killed and frozen: every job counts once."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier

from service.errors import LeaseLost, SystemFault
from service.jobs import JobState
from service.settings import Settings
from service.store import Store
from tests.specs import claim, finetune, sweep

LEASE_SECONDS = 1.0
PROCESSES = multiprocessing.get_context("spawn")


def work(url: str, name: str, job_seconds: float, together: Barrier | None) -> None:
    """A worker process: claims, beats, finishes, until every job is finished."""
    if together is not None:
        together.wait(60)  # whoever imports fastest would do everything alone
    store = Store(url, Settings(lease_seconds=LEASE_SECONDS, max_failures=1000))
    while not finished(store):
        try:
            held = store.claim(name)
            if held is None:
                time.sleep(0.02)
                continue
            for _ in range(3):
                time.sleep(job_seconds / 3)
                store.beat(held, [{"kind": "log", "message": name}])
            store.finish(held, {"attempt": held.attempt, "by": name})
        except (LeaseLost, SystemFault):
            continue
    store.dispose()


def finished(store: Store) -> bool:
    return {state for _, state in store.job_counts()} == {JobState.SUCCEEDED}


def start_worker(
    url: str, name: str, job_seconds: float, together: Barrier | None = None
) -> BaseProcess:
    arguments = (url, name, job_seconds, together)
    process = PROCESSES.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def test_threads_claim_every_job_once(store: Store) -> None:
    ids = {store.add_job(finetune())[0].id for _ in range(40)}
    start = threading.Barrier(8)

    def drain(_: int) -> list[str]:
        start.wait()
        taken = []
        while (held := store.claim("worker")) is not None:
            taken.append(held.job_id)
            store.finish(held, {})
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for part in pool.map(drain, range(8)) for job_id in part]
    assert Counter(taken) == dict.fromkeys(ids, 1)


def test_processes_claim_every_job_once(store: Store, database_url: str) -> None:
    ids = [store.add_job(finetune())[0].id for _ in range(30)]
    together = PROCESSES.Barrier(3)
    processes = [start_worker(database_url, f"w{i}", 0.03, together) for i in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [store.job(job_id).attempt for job_id in ids] == [1] * 30
    assert len({store.result(job_id)["by"] for job_id in ids}) > 1


def test_killed_and_frozen_workers_lose_and_double_nothing(store: Store, database_url: str) -> None:
    store.settings = Settings(max_failures=1000)
    # While one worker is frozen the others do some ten jobs: there must be work for every fault.
    ids = [store.add_job(finetune())[0].id for _ in range(48)]
    workers = {name: start_worker(database_url, name, 0.3) for name in ("w0", "w1", "w2")}
    chaos = random.Random(17)
    faults = ["kill", "freeze"] * 3
    deadline = time.monotonic() + 90
    try:
        while not finished(store) and time.monotonic() < deadline:
            time.sleep(0.05)
            store.reap()
            running, _ = store.list_jobs(status="running")
            if not running or not faults:
                continue
            name = holder(store, chaos.choice(running).id)
            if not workers[name].is_alive():
                continue
            if faults.pop() == "kill":
                workers[name].kill()
                workers[name].join()
                successor = f"w{len(workers)}"
                workers[successor] = start_worker(database_url, successor, 0.3)
            else:
                freeze(workers[name], LEASE_SECONDS * 1.2)
    finally:
        for process in workers.values():
            process.join(20)
            process.kill()
            process.join()
    rows = [store.job(job_id) for job_id in ids]
    assert {row.state for row in rows} == {JobState.SUCCEEDED}
    assert [store.result(row.id)["attempt"] for row in rows] == [row.attempt for row in rows]
    for row in rows:
        assert [event.kind for event in store.events(row.id)].count("done") == 1
    assert not faults
    assert max(row.attempt for row in rows) > 1


def holder(store: Store, job_id: str) -> str:
    """Name of the worker that claimed last."""
    workers = [event.data.get("worker") for event in store.events(job_id)]
    return str([name for name in workers if name][-1])


def freeze(process: BaseProcess, seconds: float) -> None:
    """As a network partition or a stopped machine would: it goes on later, none the wiser."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    thaw = threading.Timer(seconds, os.kill, (process.pid, signal.SIGCONT))
    thaw.start()
    thaw.join()


def test_of_cancel_and_finish_at_once_one_wins(store: Store) -> None:
    for _ in range(15):
        job_id = store.add_job(finetune())[0].id
        held = claim(store)
        start = threading.Barrier(2)

        def finish() -> str:
            start.wait()  # noqa: B023 -- joined below
            if store.beat(held):  # noqa: B023
                store.finish_cancelled(held)  # noqa: B023
                return "cancelled"
            store.finish(held, {})  # noqa: B023
            return "succeeded"

        def cancel() -> None:
            start.wait()  # noqa: B023
            store.cancel_job(job_id)  # noqa: B023

        with ThreadPoolExecutor(2) as pool:
            ended = pool.submit(finish)
            pool.submit(cancel).result()
        assert store.job(job_id).state == ended.result()
        done = [event.data["status"] for event in store.events(job_id) if event.kind == "done"]
        assert done == [ended.result()]


def test_of_cancel_and_claim_at_once_the_job_is_stopped_or_told(store: Store) -> None:
    for _ in range(15):
        job_id = store.add_job(finetune())[0].id
        with ThreadPoolExecutor(2) as pool:
            claiming = pool.submit(store.claim, "worker")
            pool.submit(store.cancel_job, job_id).result()
        held = claiming.result()
        if held is not None:
            assert store.beat(held) is True
            store.finish_cancelled(held)
        assert store.job(job_id).state is JobState.CANCELLED


def test_children_that_end_at_once_end_their_sweep(store: Store) -> None:
    for round_ in range(5):
        parent = store.add_job(sweep(6))[0].id
        held = [claim(store) for _ in range(6)]
        with ThreadPoolExecutor(7) as pool:
            for finishing in [pool.submit(store.finish, one, {}) for one in held]:
                finishing.result()
            if round_ % 2:
                pool.submit(store.cancel_job, parent).result()
        assert store.job(parent).state is JobState.SUCCEEDED
        assert store.job(parent).progress == {"done": 6, "total": 6, "unit": "jobs"}


def test_sweeps_are_cancelled_resumed_and_finished_at_once_without_deadlock(store: Store) -> None:
    parent = store.add_job(sweep(6))[0].id

    def drain() -> None:
        for _ in range(12):
            held = store.claim("worker")
            if held is not None:
                (store.finish_cancelled if store.beat(held) else fail)(held)

    def fail(held: object) -> None:
        store.fail(held, {"code": "x", "class": "user"})  # type: ignore[arg-type]

    def stop_and_go() -> None:
        for _ in range(6):
            store.cancel_job(parent)
            if store.job(parent).state in (JobState.FAILED, JobState.CANCELLED):
                store.resume_job(parent)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(task) for task in (drain, drain, drain, stop_and_go)]
        for task in running:
            task.result()
    store.cancel_job(parent)
    assert store.children(parent).keys() <= {JobState.FAILED, JobState.CANCELLED}
    assert store.job(parent).state in (JobState.FAILED, JobState.CANCELLED)
