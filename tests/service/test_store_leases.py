"""Expired leases are reaped, forgotten jobs are rung again, and a frozen worker holds up nobody."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from service.errors import LeaseLost
from service.jobs import JobState
from service.settings import Settings
from service.store import Store
from service.sweep import Sweeper, sweep_once
from service.tables import jobs
from tests.specs import claim, evaluate, expire, finetune, kinds, sweep


def test_a_lost_worker_costs_a_failure_and_the_job_goes_on(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    assert store.reap() == []
    expire(store, job_id)
    assert store.reap() == [job_id]
    job = store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 1)
    assert store.events(job_id)[-1].data["reason"] == "worker_lost"
    with pytest.raises(LeaseLost):
        store.beat(held)
    assert claim(store).attempt == 2


def test_a_job_that_loses_every_worker_fails(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    for _ in range(store.settings.max_failures):
        claim(store)
        expire(store, job_id)
        store.reap()
    job = store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("failed", 3, 3)
    assert job.error is not None
    assert (job.error["code"], job.error["class"]) == ("worker_lost", "system")
    assert store.claim("worker") is None
    resumed = store.resume_job(job_id)
    assert (resumed.state, resumed.failures, resumed.error) == ("queued", 0, None)
    assert kinds(store, job_id)[-2:] == ["done:failed", "queued"]


def test_a_lost_worker_that_was_told_to_stop_leaves_a_cancelled_job(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    claim(store)
    store.cancel_job(job_id)
    expire(store, job_id)
    assert store.reap() == [job_id]
    assert store.job(job_id).state is JobState.CANCELLED


def test_leases_run_out_by_the_databases_clock(store: Store) -> None:
    store.settings = Settings(lease_seconds=1.0)
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    for _ in range(3):
        time.sleep(0.5)
        store.beat(held)
        assert store.reap() == []
    time.sleep(1.1)
    assert store.reap() == [job_id]


def test_the_longest_wait_counts_from_when_a_job_could_be_taken(store: Store) -> None:
    assert store.oldest_queued() is None
    store.add_job(sweep(2))
    submitted = store.oldest_queued()
    assert submitted is not None
    assert 0 <= store.ping() - submitted < 60
    one = claim(store)
    claim(store)
    assert store.oldest_queued() is None
    store.release(one, reason="disk full", delay_seconds=600)
    waiting = store.oldest_queued()
    assert waiting is not None
    assert waiting - submitted > 500


def test_stale_are_jobs_that_waited_long_oldest_first(store: Store) -> None:
    ids = [store.add_job(finetune())[0].id for _ in range(3)]
    assert store.stale_queued(60) == []
    assert store.stale_queued(0) == ids
    assert store.stale_queued(0, limit=2) == ids[:2]
    claim(store)
    assert store.stale_queued(0) == ids[1:]


def test_a_sweep_rings_as_many_as_can_hear(store: Store) -> None:
    store.settings = Settings(sweep_seconds=0.001)
    lost = store.add_job(finetune())[0].id
    claim(store)
    expire(store, lost)
    waiting = [store.add_job(evaluate())[0].id for _ in range(3)]
    time.sleep(0.01)
    rung: list[str] = []
    assert sweep_once(store, rung.append) == []
    assert store.job(lost).state is JobState.QUEUED
    time.sleep(0.01)
    store.beat_worker("one", state="idle")
    store.beat_worker("two", state="idle")
    store.beat_worker("three", state="busy", job_id=lost)
    assert sweep_once(store, rung.append) == [lost, waiting[0]]
    assert rung == [lost, waiting[0]]


def test_the_sweeper_outlives_an_absent_database(tmp_path: Path) -> None:
    path = tmp_path / "forgetting.sqlite3"
    store = Store(f"sqlite:///{path}", Settings(sweep_seconds=0.01))
    rang = threading.Event()
    sweeper = Sweeper(store, lambda _: rang.set()).start()
    assert not rang.wait(0.1)  # no tables yet
    store.migrate()
    store.beat_worker("one", state="idle")
    store.add_job(finetune())
    assert rang.wait(10)
    sweeper.stop()
    store.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_frozen_transaction_holds_up_neither_claim_nor_reap(store: Store) -> None:
    """On SQLite one writer is all there is; there every transaction is short."""
    frozen, expired, waiting = [store.add_job(finetune())[0].id for _ in range(3)]
    for job_id in (frozen, expired):
        assert claim(store).job_id == job_id
        expire(store, job_id)
    begun = time.monotonic()
    with store.engine.begin() as connection:
        connection.execute(select(jobs.c.id).where(jobs.c.id == frozen).with_for_update())
        assert store.reap() == [expired]
        assert claim(store).job_id == expired
        assert claim(store).job_id == waiting
    assert time.monotonic() - begun < 3
    assert store.reap() == [frozen]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_look_that_does_not_skip_what_is_locked_is_held_up(store: Store) -> None:
    """Control: the same look without SKIP LOCKED ends by its timeout, and finds nothing."""
    job_id = store.add_job(finetune())[0].id
    claim(store)
    row = select(jobs.c.id).where(jobs.c.id == job_id)
    with store.engine.begin() as frozen:
        frozen.execute(row.with_for_update())
        with pytest.raises(OperationalError, match="lock timeout"), store.engine.begin() as other:
            other.execute(row.with_for_update())
        with store.engine.begin() as other:
            assert other.execute(row.with_for_update(skip_locked=True)).all() == []
