"""A real disk that is full in the middle of a real job: it waits for room, and loses nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from service.store import Store
from tests.worker.conftest import PROSE
from tests.worker.small_disk import PAUSE_SECONDS, missing, work

pytestmark = pytest.mark.timeout(1200)
ROOM = 32 << 20
"""Bytes, many times what the job takes."""
FULL_AT = {"the first adapter": 40_000, "a checkpoint to resume from": 120_000}
"""Bytes free at the start, by what does not fit any more."""


@pytest.fixture
def settings(tmp_path: Path, random_base: Path, question_answers: Path) -> Settings:
    """Database and artifacts lie elsewhere: only the worker's own disk is small."""
    if why := missing():
        pytest.skip(why)
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    (data / "corpus.txt").write_text(PROSE * 3)
    return Settings(
        home=home,
        database_url=f"sqlite:///{tmp_path / 'test.sqlite3'}",
        artifacts_url=(tmp_path / "artifacts").as_uri(),
        model_roots=[random_base.parent],
        data_roots=[question_answers.parent, data],
        allow_hub=False,
        min_free_bytes=1,
        beat_seconds=0.2,
        resume_checkpoint_seconds=0.0,
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store(settings.database, settings)
    opened.migrate()
    yield opened
    opened.dispose()


@pytest.fixture
def job_id(store: Store) -> str:
    spec = {
        "base_model": "random-base",
        "dataset": {"path": "questions.jsonl"},
        "training": {
            "max_steps": 4,
            "batch_size": 8,
            "max_length": 96,
            "learning_rate": 1e-2,
            "lora": {"r": 4},
        },
        "evaluation": {"corpus": "corpus.txt", "context": 32},
    }
    return store.add_job(FinetuneSpec.model_validate(spec))[0].id


def story(store: Store, job_id: str) -> list[Any]:
    """Every state that it was in, with the reason if one was given, and the phases between."""
    return [
        event.data.get("reason") or event.data.get("status") or event.data["phase"]
        for event in store.events(job_id, limit=1000)
        if event.kind in ("status", "phase")
    ]


@pytest.mark.parametrize("what", FULL_AT)
def test_a_job_that_finds_the_disk_full_waits_and_succeeds_once_there_is_room(
    store: Store, job_id: str, settings: Settings, what: str
) -> None:
    work(settings, free=FULL_AT[what], then_room=True)
    job = store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 0), job.error
    told = story(store, job_id)
    assert "training" in told[: told.index("disk_full")]
    warned = [e.data["message"] for e in store.events(job_id, limit=1000) if e.kind == "warning"]
    assert warned == [f"the worker's disk is full; the next attempt begins in {PAUSE_SECONDS:g} s"]
    assert len(store.result(job_id)["checkpoints"]) == len(store.checkpoints(job_id))


def test_another_worker_with_room_takes_it(store: Store, job_id: str, settings: Settings) -> None:
    work(settings, free=FULL_AT["the first adapter"])
    job = store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 0), job.error
    assert list(settings.home.iterdir()) == []  # the disk went with its worker
    work(settings, free=ROOM)
    job = store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 0), job.error


def test_unseen_a_full_disk_fails_the_job(store: Store, job_id: str, settings: Settings) -> None:
    """Control: the same disk, and a child to which it is a fault like any other."""
    work(settings, free=FULL_AT["the first adapter"], then_room=True, blind=True)
    job = store.job(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert "No space left on device" in str(job.error)
