"""Submit, show, list, delete."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import IdempotencyKeyReused, NotFinished, NotFound, StillRunning
from service.jobs import JobState
from service.store import Store
from tests.specs import ERROR, claim, evaluate, finetune, kinds, sweep


def test_a_new_job_shows_its_whole_spec(store: Store) -> None:
    job, replayed = store.add_job(finetune("org/model", metadata={"team": "a"}), owner="me")
    assert not replayed
    assert job == store.job(job.id)
    assert job.id.startswith("job_")
    assert len(job.id) == 30
    assert (job.type, job.state, job.attempt, job.failures) == ("finetune", "queued", 0, 0)
    assert job.spec == finetune("org/model", metadata={"team": "a"}).model_dump(mode="json")
    assert job.metadata == {"team": "a"}
    assert job.owner == "me"
    assert (job.started_at, job.finished_at, job.error) == (None, None, None)
    assert abs(job.created_at - store.ping()) < 5
    assert kinds(store, job.id) == ["queued"]


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for ask in (store.job, store.result, store.cancel_job, store.resume_job, store.delete_job):
        with pytest.raises(NotFound, match="job_none"):
            ask("job_none")
    for read in (store.events, store.metrics, store.checkpoints, store.artifacts):
        with pytest.raises(NotFound):
            read("job_none")
    with pytest.raises(NotFound):
        store.list_jobs(after="job_none")


def test_ids_made_in_one_millisecond_keep_their_order(store: Store) -> None:
    ids = [store.add_job(finetune())[0].id for _ in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


def test_pages_hold_every_job_once_newest_first(store: Store) -> None:
    ids = [store.add_job(finetune())[0].id for _ in range(7)]
    seen: list[str] = []
    after, more = None, True
    while more:
        page, more = store.list_jobs(limit=3, after=after)
        seen += [job.id for job in page]
        after = seen[-1]
    assert seen == ids[::-1]
    assert store.list_jobs(limit=7)[1] is False


def test_filters_narrow_together(store: Store) -> None:
    one = store.add_job(finetune("a", metadata={"k": "v", "n": "1"}), owner="me")[0].id
    two = store.add_job(finetune("a", metadata={"k": "v"}))[0].id
    three = store.add_job(evaluate("b"))[0].id
    parent = store.add_job(sweep(2))[0].id
    store.cancel_job(two)

    def found(**filters: object) -> set[str]:
        return {job.id for job in store.list_jobs(**filters)[0]}  # type: ignore[arg-type]

    assert found(base_model="a") == {one, two}
    assert found(base_model="a", status="queued") == {one}
    assert found(type="evaluate") == {three}
    assert found(metadata={"k": "v"}) == {one, two}
    assert found(metadata={"k": "v", "n": "1"}) == {one}
    assert found(metadata={"k": "1"}) == set()
    assert found(owner="me") == {one}
    assert len(found(sweep=parent)) == 2
    assert found(type="sweep") == {parent}


@pytest.mark.parametrize("text", ["\x00", "é" * 512, "😀" * 512, 'a"b\\c', "%_"])
def test_metadata_takes_any_text(store: Store, text: str) -> None:
    job, _ = store.add_job(finetune(metadata={"note": text}))
    assert store.job(job.id).metadata == {"note": text}
    assert [j.id for j in store.list_jobs(metadata={"note": text})[0]] == [job.id]


def test_an_idempotency_key_answers_with_the_first_job(store: Store) -> None:
    first, _ = store.add_job(sweep(2), idempotency_key="k", owner="me")
    again, replayed = store.add_job(sweep(2), idempotency_key="k", owner="me")
    assert (again, replayed) == (first, True)
    assert sum(store.children(first.id).values()) == 2
    assert len(store.list_jobs()[0]) == 3
    other, replayed = store.add_job(sweep(2), idempotency_key="k", owner="you")
    assert not replayed
    assert other.id != first.id
    with pytest.raises(IdempotencyKeyReused, match=first.id) as refused:
        store.add_job(sweep(3), idempotency_key="k", owner="me")
    assert refused.value.param == "Idempotency-Key"
    assert len(store.list_jobs()[0]) == 6


def test_one_key_sent_at_once_makes_one_job(store: Store) -> None:
    start = threading.Barrier(8)

    def submit(_: int) -> tuple[str, bool]:
        start.wait()
        job, replayed = store.add_job(finetune(), idempotency_key="k")
        return job.id, replayed

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 7
    assert len(store.list_jobs()[0]) == 1


def test_only_finished_jobs_are_deleted_with_all_that_hangs_on_them(store: Store) -> None:
    job, _ = store.add_job(finetune(metadata={"a": "b"}))
    with pytest.raises(StillRunning, match="queued"):
        store.delete_job(job.id)
    held = claim(store)
    with pytest.raises(StillRunning, match="running"):
        store.delete_job(job.id)
    store.beat(held, [{"kind": "metric", "name": "kl", "step": 1, "value": 0.5}])
    artifacts = [{"name": "result.json", "bytes": 3, "sha256": "sha256:0"}]
    store.finish(held, {"kl": 1}, artifacts=artifacts, artifacts_prefix="jobs/1")
    assert store.delete_job(job.id).artifacts_prefix == "jobs/1"
    with pytest.raises(NotFound):
        store.result(job.id)
    assert store.list_jobs(metadata={"a": "b"}) == ([], False)


def test_a_deleted_jobs_key_is_free_again(store: Store) -> None:
    job, _ = store.add_job(finetune(), idempotency_key="k")
    store.cancel_job(job.id)
    store.delete_job(job.id)
    assert store.add_job(finetune("other"), idempotency_key="k")[1] is False


def test_counts_by_type_and_state(store: Store) -> None:
    store.add_job(finetune())
    store.add_job(evaluate())
    store.add_job(evaluate())
    store.fail(claim(store), ERROR)
    assert store.job_counts() == {
        ("finetune", JobState.FAILED): 1,
        ("evaluate", JobState.QUEUED): 2,
    }


def test_no_json_in_the_database_holds_nan_or_infinity(store: Store) -> None:
    job, _ = store.add_job(finetune())
    held = claim(store)
    nan, inf = math.nan, math.inf
    store.beat(
        held,
        [
            {"kind": "metric", "name": "train_loss", "step": 1, "value": nan},
            {"kind": "log", "message": "x", "seen": [inf, {"deep": -inf}]},
            {"kind": "checkpoint", "step": 1, "adapter": "a", "kl": nan, "train_loss": inf},
        ],
    )
    store.finish(held, {"kl": {"value": nan, "ci95": (inf, 1.0)}, "by": {"r": nan}})
    assert store.result(job.id) == {
        "kl": {"value": None, "ci95": [None, 1.0]},
        "by": {"r": None},
    }
    assert store.metrics(job.id)["train_loss"][0].value is None
    assert store.checkpoints(job.id)[0]["kl"] is None
    assert store.events(job.id)[3].data == {"message": "x", "seen": [None, {"deep": None}]}


def test_a_result_is_refused_until_there_is_one(store: Store) -> None:
    job, _ = store.add_job(finetune())
    with pytest.raises(NotFinished, match="queued"):
        store.result(job.id)
    store.cancel_job(job.id)
    with pytest.raises(NotFinished, match="cancelled and has no result"):
        store.result(job.id)
