"""Claim, beat, finish, and the fence around everything after the claim."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import LeaseLost, SystemFault
from service.jobs import JobState
from service.store import Claim, Store
from service.tables import jobs
from tests.specs import ERROR, claim, evaluate, expire, finetune, kinds

FENCED: list[Callable[[Store, Claim], object]] = [
    lambda store, held: store.beat(held, [{"kind": "log", "message": "late"}]),
    lambda store, held: store.release(held, reason="late"),
    lambda store, held: store.finish(held, {"by": "late"}),
    lambda store, held: store.fail(held, ERROR),
    lambda store, held: store.fail(held, ERROR, retry=True),
    lambda store, held: store.finish_cancelled(held),
]
FENCED_IDS = ["beat", "release", "finish", "fail", "retry", "finish_cancelled"]


def test_the_oldest_job_comes_first_whichever_id_rang(store: Store) -> None:
    ids = [store.add_job(finetune())[0].id for _ in range(5)]
    assert [claim(store).job_id for _ in range(5)] == ids
    assert store.claim("worker") is None


def test_a_released_job_keeps_its_place(store: Store) -> None:
    first = store.add_job(finetune())[0].id
    store.add_job(finetune())
    store.release(claim(store), reason="stopping")
    assert claim(store).job_id == first


def test_a_claim_starts_an_attempt(store: Store) -> None:
    job = store.add_job(finetune())[0]
    one = claim(store)
    assert (one.job_id, one.attempt, one.spec) == (job.id, 1, job.spec)
    running = store.job(job.id)
    assert (running.state, running.attempt) == ("running", 1)
    assert running.started_at is not None
    store.release(one, reason="stopping")
    two = claim(store)
    assert two.attempt == 2
    assert two.lease_token != one.lease_token
    assert store.job(job.id).started_at == running.started_at
    assert store.job(job.id).failures == 0
    assert kinds(store, job.id) == ["queued", "running", "queued", "running"]


def test_a_beat_writes_everything_reported(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    reported = [
        {"kind": "phase", "phase": "training"},
        {"kind": "progress", "done": 1, "total": 9, "unit": "steps"},
        {"kind": "progress", "done": 2, "total": 9, "unit": "steps"},
        {"kind": "metric", "name": "train_loss", "step": 1, "value": 3.5},
        {"kind": "metric", "name": "train_loss", "step": 2, "value": 3.25},
        {"kind": "checkpoint", "step": 2, "adapter": "checkpoints/step-2", "rank": 4},
    ]
    assert store.beat(held, reported) is False
    job = store.job(job_id)
    assert job.phase == "training"
    assert job.progress == {"done": 2, "total": 9, "unit": "steps"}
    assert [(m.step, m.value) for m in store.metrics(job_id)["train_loss"]] == [(1, 3.5), (2, 3.25)]
    events = store.events(job_id)
    assert [e.id for e in events] == list(range(1, 8))
    assert [e.kind for e in events[2:]] == ["phase", "progress", "metric", "metric", "checkpoint"]
    assert [e.id for e in store.events(job_id, after=5)] == [6, 7]
    assert [e.id for e in store.events(job_id, after=5, limit=1)] == [6]
    assert store.events(job_id, after=7) == []
    store.beat(held, [{"kind": "phase", "phase": "scoring_base"}])
    assert store.job(job_id).progress is None


def test_metrics_and_checkpoints_are_filled_in_not_doubled(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    for value in (3.5, 3.0):
        metric = {"kind": "metric", "name": "kl", "step": 1, "value": value}
        twice = {"kind": "checkpoint", "step": 1, "adapter": "a", "train_loss": value}
        store.beat(held, [metric, metric, twice])
    store.beat(held, [{"kind": "checkpoint", "step": 1, "adapter": "a", "kl": 0.25}])
    assert [(m.step, m.value) for m in store.metrics(job_id, ["kl", "other"])["kl"]] == [(1, 3.0)]
    (checkpoint,) = store.checkpoints(job_id)
    assert (checkpoint["train_loss"], checkpoint["kl"], checkpoint["rank"]) == (3.0, 0.25, None)
    assert store.metrics(job_id, ["other"]) == {}


def test_adapters_measured_side_by_side_each_have_a_checkpoint(store: Store) -> None:
    job_id = store.add_job(evaluate())[0].id
    held = claim(store)
    rows = [(None, "one"), (None, "two"), (140, "job_a:140"), (140, "job_b:140")]
    store.beat(held, [{"kind": "checkpoint", "step": s, "adapter": a} for s, a in rows])
    assert [(c["step"], c["adapter"]) for c in store.checkpoints(job_id)] == rows


def test_a_beat_extends_the_lease_and_brings_the_wish_to_cancel(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    expire(store, job_id)
    assert store.beat(held) is False
    assert store.reap() == []
    assert store.cancel_job(job_id).state is JobState.RUNNING
    assert store.beat(held) is True
    store.finish_cancelled(held)
    job = store.job(job_id)
    assert (job.state, job.cancel_requested) == ("cancelled", True)
    assert kinds(store, job_id) == ["queued", "running", "running", "cancelled", "done:cancelled"]


def test_finish_records_one_result(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    store.beat(held, [{"kind": "phase", "phase": "fitting"}])
    files = [{"name": "b", "bytes": 2**40, "sha256": "sha256:b"}]
    files += [{"name": "a", "bytes": 1, "sha256": "sha256:a"}]
    store.finish(held, {"kl": 0.5}, artifacts=files, artifacts_prefix="p")
    job = store.job(job_id)
    assert (job.state, job.phase) == ("succeeded", None)
    assert job.finished_at is not None
    assert job.artifacts_prefix == "p"
    assert store.result(job_id) == {"kl": 0.5}
    assert [a["name"] for a in store.artifacts(job_id)] == ["a", "b"]
    assert store.artifacts(job_id)[1]["bytes"] == 2**40
    assert kinds(store, job_id)[-2:] == ["succeeded", "done:succeeded"]
    with pytest.raises(LeaseLost):
        store.finish(held, {"kl": 9.0})
    assert store.result(job_id)["kl"] == 0.5


def test_a_failure_is_final_unless_it_may_be_retried(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    for failures in (1, 2):
        store.fail(claim(store), {"code": "out_of_memory", "class": "system"}, retry=True)
        job = store.job(job_id)
        assert (job.state, job.failures, job.error) == ("queued", failures, None)
    store.fail(claim(store), {"code": "out_of_memory", "class": "system"}, retry=True)
    job = store.job(job_id)
    assert (job.state, job.failures, job.attempt) == ("failed", 3, 3)
    assert job.error == {"code": "out_of_memory", "class": "system"}
    other = store.add_job(finetune())[0].id
    store.fail(claim(store), ERROR)
    assert (store.job(other).state, store.job(other).failures) == ("failed", 0)


@pytest.mark.parametrize("give_up", ["release", "retry"])
def test_what_is_given_back_after_a_cancel_is_cancelled(store: Store, give_up: str) -> None:
    job_id = store.add_job(finetune())[0].id
    held = claim(store)
    store.cancel_job(job_id)
    if give_up == "release":
        store.release(held, reason="stopping")
    else:
        store.fail(held, ERROR, retry=True)
    assert store.job(job_id).state is JobState.CANCELLED
    assert store.claim("worker") is None


def test_a_delayed_release_is_not_claimable_yet(store: Store) -> None:
    job_id = store.add_job(finetune())[0].id
    store.release(claim(store), reason="disk_full", delay_seconds=60)
    assert store.job(job_id).state is JobState.QUEUED
    assert store.claim("worker") is None
    assert store.stale_queued(0) == []


@pytest.mark.parametrize("report", FENCED, ids=FENCED_IDS)
def test_a_stale_attempt_is_refused_and_leaves_nothing(
    store: Store, report: Callable[[Store, Claim], object]
) -> None:
    job_id = store.add_job(finetune())[0].id
    stale = claim(store)
    expire(store, job_id)
    store.reap()
    with pytest.raises(LeaseLost):
        report(store, stale)
    current = claim(store)
    before = store.job(job_id), store.events(job_id)
    # Attempt and token fence separately: after a failover one attempt number may be issued twice.
    for forged in (
        stale,
        replace(stale, attempt=current.attempt),
        replace(stale, lease_token=current.lease_token),
    ):
        with pytest.raises(LeaseLost):
            report(store, forged)
    assert (store.job(job_id), store.events(job_id)) == before
    store.finish(current, {"by": "current"})
    with pytest.raises(LeaseLost):
        report(store, stale)
    assert store.result(job_id) == {"by": "current"}


def _zombie_finishes_first(store: Store) -> dict[str, object]:
    """A worker frozen for longer than its lease wakes up while its successor works."""
    job_id = store.add_job(finetune())[0].id
    zombie = claim(store, "zombie")
    expire(store, job_id)
    store.reap()
    successor = claim(store, "successor")
    for name, held in (("zombie", zombie), ("successor", successor)):
        try:
            store.finish(held, {"by": name})
        except LeaseLost:
            continue
    return store.result(job_id)


def test_a_zombies_result_is_not_recorded(store: Store) -> None:
    assert _zombie_finishes_first(store) == {"by": "successor"}


def test_without_the_fence_a_zombies_result_would_be_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the test above bites."""
    unfenced = lambda held: jobs.c.id == held.job_id  # noqa: E731
    monkeypatch.setattr("service.store.attempts.owned", unfenced)
    assert _zombie_finishes_first(store) == {"by": "zombie"}


def test_a_database_that_is_away_is_a_system_fault(database_url: str, tmp_path: Path) -> None:
    # A folder is no SQLite file.
    absent = f"{database_url}_absent" if "postgres" in database_url else f"sqlite:///{tmp_path}"
    store = Store(absent)
    with pytest.raises(SystemFault, match="database"):
        store.ping()
