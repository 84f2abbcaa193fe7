"""Jobs of many threads in one transaction of SQLite: each is stored, or refused, as if alone."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from service.errors import IdempotencyKeyReused, TooManyJobs
from service.settings import Settings
from service.store import Access, JobRow, Store
from service.store.engine import writer_lock
from tests.servers import migrate_again
from tests.specs import finetune

Submission = Callable[[], tuple[JobRow, bool]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.sqlite3'}", Settings())
    migrate_again(opened)
    yield opened
    opened.dispose()


def at_once(store: Store, submissions: list[Submission]) -> list[Future[tuple[JobRow, bool]]]:
    """All of them ended, after all had waited for the writer's lock."""
    with ThreadPoolExecutor(len(submissions)) as pool:
        with writer_lock(store.engine):
            ends = []
            for i, one in enumerate(submissions, start=1):
                ends.append(pool.submit(one))
                while len(store._together._waiting) < i:
                    time.sleep(0.001)
        return ends


@contextmanager
def commits(store: Store) -> Iterator[list[int]]:
    """The threads that committed."""
    found: list[int] = []
    event.listen(store.engine, "commit", lambda _: found.append(threading.get_ident()))
    yield found


def add(store: Store, name: str, key: str | None = None) -> Submission:
    return lambda: store.add_job(finetune(name), idempotency_key=key)


def test_one_commit_stores_all_that_wait(store: Store) -> None:
    with commits(store) as committed:
        ends = at_once(store, [add(store, f"model-{i}") for i in range(8)])
    assert len(committed) == 1
    jobs = [end.result()[0] for end in ends]
    assert len({job.id for job in jobs}) == 8
    for i, job in enumerate(jobs):
        assert store.job(job.id) == job
        assert job.spec["base_model"] == f"model-{i}"
        assert [one.kind for one in store.events(job.id)] == ["status"]
    assert not store._together._waiting


def test_the_same_key_twice_at_once_is_one_job(store: Store) -> None:
    ends = at_once(store, [add(store, "m", "key") for _ in range(4)])
    assert len({end.result()[0].id for end in ends}) == 1
    assert sorted(end.result()[1] for end in ends) == [False, True, True, True]


def test_a_refusal_is_of_one_alone(store: Store) -> None:
    store.add_job(finetune("first"), idempotency_key="key")
    ends = at_once(store, [add(store, "a"), add(store, "another", "key"), add(store, "b")])
    with pytest.raises(IdempotencyKeyReused):
        ends[1].result()
    rows, _ = store.list_jobs()
    assert [row.spec["base_model"] for row in rows] in (["b", "a", "first"], ["a", "b", "first"])


def test_a_fault_is_of_one_alone(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER no_b BEFORE INSERT ON jobs WHEN NEW.base_model = 'b' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        )
    ends = at_once(store, [add(store, name) for name in ("a", "b", "c")])
    with pytest.raises(IntegrityError):
        ends[1].result()
    assert {row.spec["base_model"] for row in store.list_jobs()[0]} == {"a", "c"}


def test_each_is_held_to_its_own_quota_and_owner(store: Store) -> None:
    poor = store.seen_by(Access(owner="poor", sees_all=False, max_jobs=2))
    rich = store.seen_by(Access(owner="rich", sees_all=False, max_jobs=9))
    ends = at_once(store, [add(one, "m") for one in (poor, rich, poor, rich, poor, rich)])
    errors = [end.exception() for end in ends]
    assert [type(error) for error in errors if error is not None] == [TooManyJobs]
    assert len(poor.list_jobs()[0]) == 2
    assert len(rich.list_jobs()[0]) == 3
