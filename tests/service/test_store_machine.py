"""Any order of calls keeps the promises: states follow the table, one result, stale is refused."""

import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import and_, literal

from service.errors import LeaseLost, NotResumable, StillRunning
from service.jobs import NEXT, RESUMABLE, TERMINAL, JobState
from service.settings import Settings
from service.store import Claim, Store
from service.store.moves import HELD
from service.tables import jobs as jobs_table
from tests.servers import migrate_again
from tests.specs import ERROR, expire, finetune


@dataclass
class Model:
    """What a job must look like, tracked beside the store."""

    state: JobState = JobState.QUEUED
    cancel_requested: bool = False
    failures: int = 0
    holder: Claim | None = None
    attempts: int = 0
    result: str | None = None
    seen: list[JobState] = field(default_factory=lambda: [JobState.QUEUED])

    def move(self, state: JobState) -> None:
        assert state in NEXT[self.state]
        self.state = state
        self.seen.append(state)
        self.holder = None

    def give_back(self, *, counts: bool) -> None:
        self.failures += counts
        if self.cancel_requested:
            self.move(JobState.CANCELLED)
        elif counts and self.failures >= 3:
            self.move(JobState.FAILED)
        else:
            self.move(JobState.QUEUED)


class Promises(RuleBasedStateMachine):
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "forgetting.sqlite3"
        self.store = Store(f"sqlite:///{path}", Settings())
        migrate_again(self.store)
        self.jobs: dict[str, Model] = {}
        self.names = itertools.count()

    def teardown(self) -> None:
        self.store.dispose()
        self.folder.cleanup()

    def pick(self, index: int) -> tuple[str, Model]:
        return sorted(self.jobs.items())[index % len(self.jobs)]

    @initialize()
    def begin(self) -> None:
        self.add()

    # Few jobs, so that a stale claim often meets its successor's.
    @precondition(lambda self: len(self.jobs) < 2)
    @rule()
    def add(self) -> None:
        self.jobs[self.store.add_job(finetune())[0].id] = Model()

    @rule(target=claims)
    def claim(self) -> object:
        queued = sorted(i for i, job in self.jobs.items() if job.state is JobState.QUEUED)
        claim = self.store.claim("worker")
        assert (claim.job_id if claim else None) == (queued[0] if queued else None)
        if claim is None:
            return multiple()
        job = self.jobs[claim.job_id]
        job.move(JobState.RUNNING)
        job.attempts += 1
        job.holder = claim
        assert claim.attempt == job.attempts
        return claim

    @rule(claim=claims, how=st.sampled_from(["finish", "fail", "retry", "release", "cancelled"]))
    def end(self, claim: Claim, how: str) -> None:
        job = self.jobs.get(claim.job_id)
        body = f"{claim.job_id}/{claim.attempt}"
        calls = {
            "finish": lambda: self.store.finish(claim, {"by": body}),
            "fail": lambda: self.store.fail(claim, ERROR),
            "retry": lambda: self.store.fail(claim, ERROR, retry=True),
            "release": lambda: self.store.release(claim, reason="stopping"),
            "cancelled": lambda: self.store.finish_cancelled(claim),
        }
        if job is None or job.holder != claim:
            with pytest.raises(LeaseLost):
                calls[how]()
            return
        calls[how]()
        if how == "finish":
            job.result = body
            job.move(JobState.SUCCEEDED)
        elif how == "fail":
            job.move(JobState.FAILED)
        elif how == "cancelled":
            job.cancel_requested = True
            job.move(JobState.CANCELLED)
        else:
            job.give_back(counts=how == "retry")

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        job = self.jobs.get(claim.job_id)
        if job is None or job.holder != claim:
            with pytest.raises(LeaseLost):
                self.store.beat(claim, [{"kind": "log", "message": "late"}])
        else:
            assert self.store.beat(claim) == job.cancel_requested

    @rule(claim=claims)
    def lose_worker(self, claim: Claim) -> None:
        job = self.jobs.get(claim.job_id)
        expire(self.store, claim.job_id)
        held = job is not None and job.state is JobState.RUNNING
        assert self.store.reap() == ([claim.job_id] if held else [])
        if job is not None and held:
            job.give_back(counts=True)

    @rule()
    def sweep(self) -> None:
        """Nobody's lease has run out: nobody loses a job."""
        assert self.store.reap() == []

    @rule(index=st.integers(0, 9))
    def cancel(self, index: int) -> None:
        if self.jobs:
            job_id, job = self.pick(index)
            self.store.cancel_job(job_id)
            if job.state not in TERMINAL:
                job.cancel_requested = True
            if job.state is JobState.QUEUED:
                job.move(JobState.CANCELLED)

    @rule(index=st.integers(0, 9))
    def resume(self, index: int) -> None:
        if self.jobs:
            job_id, job = self.pick(index)
            if job.state not in RESUMABLE:
                with pytest.raises(NotResumable):
                    self.store.resume_job(job_id)
                return
            self.store.resume_job(job_id)
            job.move(JobState.QUEUED)
            job.cancel_requested, job.failures = False, 0

    @rule(index=st.integers(0, 9))
    def delete(self, index: int) -> None:
        if self.jobs:
            job_id, job = self.pick(index)
            if job.state not in TERMINAL:
                with pytest.raises(StillRunning):
                    self.store.delete_job(job_id)
                return
            self.store.delete_job(job_id)
            del self.jobs[job_id]

    @invariant()
    def the_store_agrees(self) -> None:
        rows = {row.id: row for row in self.store.list_jobs(limit=100)[0]}
        assert rows.keys() == self.jobs.keys()
        for job_id, job in self.jobs.items():
            row = rows[job_id]
            assert (row.state, row.cancel_requested) == (job.state, job.cancel_requested)
            assert (row.attempt, row.failures) == (job.attempts, job.failures)
            events = self.store.events(job_id)
            assert [e.id for e in events] == list(range(1, len(events) + 1))
            moves = [e.data["status"] for e in events if e.kind == "status"]
            assert [s for s, _ in itertools.groupby(moves)] == job.seen
            done = [e.data["status"] for e in events if e.kind == "done"]
            assert done == [s for s in job.seen if s in TERMINAL]
            if job.result is not None:
                assert self.store.result(job_id) == {"by": job.result}


CHECK = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking a failure would take minutes
)


def test_every_order_of_calls_keeps_the_promises() -> None:
    run_state_machine_as_test(Promises, settings=CHECK)


def fails() -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, LeaseLost)):
        run_state_machine_as_test(Promises, settings=CHECK)


def test_the_machine_finds_a_missing_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without attempt and token in the fence, some order of calls breaks a promise."""

    def unfenced(held: Claim) -> object:
        return and_(jobs_table.c.id == held.job_id, jobs_table.c.state.in_(HELD))

    monkeypatch.setattr("service.store.attempts.owned", unfenced)
    fails()


def test_the_machine_finds_a_missing_look_at_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a sweep that takes every running job away."""
    monkeypatch.setattr("service.store.leases.epoch_now", lambda: literal(1e18))
    fails()


def test_the_machine_finds_a_cancel_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a job that was to be cancelled is queued again when its worker is lost."""
    monkeypatch.setattr("service.store.attempts._cancel_requested", lambda *_: False)
    fails()
