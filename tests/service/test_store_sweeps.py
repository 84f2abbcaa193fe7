"""A sweep's row follows its children."""

from collections.abc import Callable

import pytest

from service.errors import NotResumable, StillRunning
from service.jobs import JobState
from service.store import Claim, Store
from tests.specs import ERROR, claim, expire, kinds, sweep

USER, SYSTEM = ERROR, ERROR | {"class": "system"}


def ids_of(store: Store, sweep_id: str) -> list[str]:
    """Children, oldest first."""
    return [job.id for job in store.list_jobs(sweep=sweep_id, limit=300)[0]][::-1]


def state(store: Store, job_id: str) -> JobState:
    return store.job(job_id).state


def succeed(store: Store) -> None:
    store.finish(claim(store), {"kl": 0.1})


def test_a_sweep_expands_into_its_children(store: Store) -> None:
    spec = sweep(3, seeds=[17, 42], learning_rates=[1e-4, 1e-3], metadata={"a": "b"})
    parent, _ = store.add_job(spec)
    children = [store.job(child) for child in ids_of(store, parent.id)]
    assert len(children) == 12
    assert [(c.spec["training"]["lora"]["r"]) for c in children[:4]] == [2, 4, 8, 2]
    assert {c.spec["training"]["seed"] for c in children} == {17, 42}
    assert {c.spec["training"]["learning_rate"] for c in children} == {1e-4, 1e-3}
    assert all(c.type == "finetune" and c.metadata == {"a": "b"} for c in children)
    assert store.children(parent.id) == {JobState.QUEUED: 12}
    assert (parent.type, parent.state, parent.sweep_id) == ("sweep", "queued", None)


def test_a_sweep_is_never_claimed_and_never_rung(store: Store) -> None:
    parent, _ = store.add_job(sweep(2))
    assert parent.id not in store.stale_queued(0)
    assert {claim(store).job_id, claim(store).job_id} == set(ids_of(store, parent.id))
    assert store.claim("worker") is None


def test_a_sweep_runs_from_its_first_claim_to_its_last_finish(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    one, two = claim(store), claim(store)
    assert state(store, parent) is JobState.RUNNING
    store.fail(one, ERROR)
    assert state(store, parent) is JobState.RUNNING
    assert store.job(parent).progress == {"done": 1, "total": 2, "unit": "jobs"}
    store.finish(two, {"kl": 0.1})
    ended = store.job(parent)
    assert (ended.state, ended.error) == ("succeeded", None)
    assert ended.finished_at is not None
    assert store.children(parent) == {JobState.SUCCEEDED: 1, JobState.FAILED: 1}
    assert kinds(store, parent) == [
        *("queued", "running", "progress", "progress", "succeeded", "done:succeeded"),
    ]


@pytest.mark.parametrize(
    ("errors", "fault"), [((USER, USER), "user"), ((USER, SYSTEM), "system")], ids=str
)
def test_a_sweep_whose_children_all_failed_failed(
    store: Store, errors: tuple[dict[str, str], ...], fault: str
) -> None:
    parent = store.add_job(sweep(2))[0].id
    for error in errors:
        store.fail(claim(store), error)
    error = store.job(parent).error
    assert state(store, parent) is JobState.FAILED
    assert error is not None
    assert (error["code"], error["class"]) == ("children_failed", fault)


LEAVE: dict[str, tuple[Callable[[Store, Claim], object], JobState]] = {
    "failed": (lambda store, held: store.fail(held, ERROR), JobState.FAILED),
    "cancelled": (lambda store, held: store.finish_cancelled(held), JobState.CANCELLED),
    "released": (lambda store, held: store.release(held, reason="x"), JobState.RUNNING),
    "reaped": (lambda store, held: expire_and_reap(store, held), JobState.RUNNING),
}


def expire_and_reap(store: Store, held: Claim) -> None:
    expire(store, held.job_id)
    assert store.reap() == [held.job_id]


@pytest.mark.parametrize("way", LEAVE)
def test_a_sweep_follows_however_its_child_leaves(store: Store, way: str) -> None:
    leave, expected = LEAVE[way]
    parent = store.add_job(sweep(1))[0].id
    leave(store, claim(store))
    assert state(store, parent) is expected


def test_a_sweep_fails_when_the_reaper_gives_its_child_up(store: Store) -> None:
    parent = store.add_job(sweep(1))[0].id
    for _ in range(3):
        expire_and_reap(store, claim(store))
    assert state(store, parent) is JobState.FAILED
    assert (store.job(parent).error or {})["class"] == "system"


def test_cancelling_children_one_by_one_cancels_the_sweep(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    one, two = ids_of(store, parent)
    store.cancel_job(one)
    assert state(store, parent) is JobState.QUEUED
    store.cancel_job(two)
    assert state(store, parent) is JobState.CANCELLED


def test_one_success_outweighs_children_cancelled_by_hand(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    succeed(store)
    store.cancel_job(ids_of(store, parent)[1])
    assert state(store, parent) is JobState.SUCCEEDED


def test_cancelling_a_sweep_stops_queued_children_and_flags_running_ones(store: Store) -> None:
    parent = store.add_job(sweep(4))[0].id
    succeed(store)
    held = claim(store)
    assert store.cancel_job(parent).state is JobState.RUNNING
    assert store.job(parent).cancel_requested
    assert store.children(parent) == {
        JobState.SUCCEEDED: 1,
        JobState.RUNNING: 1,
        JobState.CANCELLED: 2,
    }
    assert store.claim("worker") is None
    assert store.beat(held) is True
    store.finish_cancelled(held)
    assert state(store, parent) is JobState.CANCELLED
    assert store.cancel_job(parent).state is JobState.CANCELLED
    assert kinds(store, parent).count("done:cancelled") == 1


def test_cancelling_a_sweep_before_it_started_ends_it_at_once(store: Store) -> None:
    parent = store.add_job(sweep(3))[0].id
    cancelled = store.cancel_job(parent)
    assert (cancelled.state, cancelled.cancel_requested) == ("cancelled", True)
    assert store.children(parent) == {JobState.CANCELLED: 3}


def test_resuming_a_sweep_resumes_failed_and_cancelled_children(store: Store) -> None:
    parent = store.add_job(sweep(3))[0].id
    succeed(store)
    store.fail(claim(store), ERROR)
    store.cancel_job(parent)
    assert state(store, parent) is JobState.CANCELLED
    resumed = store.resume_job(parent)
    assert (resumed.state, resumed.cancel_requested, resumed.finished_at) == ("queued", False, None)
    assert store.children(parent) == {JobState.SUCCEEDED: 1, JobState.QUEUED: 2}
    succeed(store)
    assert state(store, parent) is JobState.RUNNING
    succeed(store)
    assert state(store, parent) is JobState.SUCCEEDED
    with pytest.raises(NotResumable, match="succeeded"):
        store.resume_job(parent)


def test_a_resumed_child_moves_its_sweep_back(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    store.fail(claim(store), ERROR)
    store.fail(claim(store), ERROR)
    child = store.resume_job(ids_of(store, parent)[0])
    assert child.state is JobState.QUEUED
    assert (state(store, parent), store.job(parent).error) == ("queued", None)
    succeed(store)
    assert state(store, parent) is JobState.SUCCEEDED


def test_a_succeeded_sweep_follows_a_failed_child_that_runs_again(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    store.fail(claim(store), ERROR)
    succeed(store)
    store.resume_job(ids_of(store, parent)[0])
    assert state(store, parent) is JobState.QUEUED
    with pytest.raises(StillRunning):
        store.delete_job(parent)
    held = claim(store)
    assert state(store, parent) is JobState.RUNNING
    store.finish(held, {"kl": 0.1})
    assert store.children(parent) == {JobState.SUCCEEDED: 2}
    assert state(store, parent) is JobState.SUCCEEDED
    assert kinds(store, parent).count("done:succeeded") == 2


def test_resuming_a_succeeded_sweep_resumes_what_failed_or_was_cancelled(store: Store) -> None:
    parent = store.add_job(sweep(3))[0].id
    store.fail(claim(store), ERROR)
    store.cancel_job(ids_of(store, parent)[1])
    with pytest.raises(NotResumable, match="is running"):
        store.resume_job(parent)
    succeed(store)
    assert state(store, parent) is JobState.SUCCEEDED
    resumed = store.resume_job(parent)
    assert (resumed.state, resumed.finished_at) == ("queued", None)
    assert store.children(parent) == {JobState.SUCCEEDED: 1, JobState.QUEUED: 2}
    succeed(store)
    succeed(store)
    assert state(store, parent) is JobState.SUCCEEDED
    with pytest.raises(NotResumable):
        store.resume_job(parent)


@pytest.mark.parametrize(
    ("first", "end"), [(succeed, JobState.SUCCEEDED), (None, JobState.FAILED)], ids=str
)
def test_a_resumed_child_that_is_cancelled_at_once_ends_its_sweep_again(
    store: Store, first: Callable[[Store], None] | None, end: JobState
) -> None:
    parent = store.add_job(sweep(2))[0].id
    store.fail(claim(store), ERROR)
    if first is None:
        store.fail(claim(store), ERROR)
    else:
        first(store)
    child = ids_of(store, parent)[0]
    store.resume_job(child)
    store.cancel_job(child)
    assert state(store, parent) is end


def test_deleting_a_sweep_deletes_its_children(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    other = store.add_job(sweep(1))[0].id
    one, _ = ids_of(store, parent)
    with pytest.raises(StillRunning):
        store.delete_job(parent)
    store.cancel_job(one)
    with pytest.raises(StillRunning, match=parent):
        store.delete_job(one)
    store.cancel_job(parent)
    store.delete_job(parent)
    assert {job.id for job in store.list_jobs()[0]} == {other, *ids_of(store, other)}
