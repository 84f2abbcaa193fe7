"""The service in process over a real database, with models and data of its own under its roots."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.store import Store
from tests.model_folders import write_model
from tests.results import run_next
from tests.sent_adapters import leftovers

Json = dict[str, Any]


class Bell:
    """Remembers who was rung for."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.answers = True

    def __call__(self, job_id: str) -> None:
        self.rung.append(job_id)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None:
        if not self.answers:
            raise ConnectionError("no broker")


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """Folder with `models/tiny`, `data/rows.jsonl` (40 texts) and `data/corpus.txt`."""
    write_model(tmp_path / "models" / "tiny")
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"text": f"A sentence with the number {i}."} for i in range(40)]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "corpus.txt").write_text("One page of prose, long enough to be scored.\n")
    return tmp_path


@pytest.fixture
def api_settings(roots: Path) -> Settings:
    return Settings(
        home=roots / "home",
        model_roots=[roots / "models"],
        data_roots=[roots / "data"],
        allow_hub=False,
        sweep_seconds=3600,
    )


@pytest.fixture
def api(store: Store, api_settings: Settings, bell: Bell) -> Iterator[TestClient]:
    """Over SQLite and over PostgreSQL."""
    with TestClient(create_app(store, api_settings, bell)) as client:
        yield client


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no row; migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "forgetting.sqlite3"
    store = Store(f"sqlite:///{path}", Settings())
    store.migrate()
    store.dispose()
    return path


@pytest.fixture
def sqlite_store(api_settings: Settings, migrated: Path) -> Iterator[Store]:
    api_settings.home.mkdir()
    shutil.copyfile(migrated, api_settings.home / "forgetting.sqlite3")
    opened = Store(api_settings.database, api_settings)
    try:
        yield opened
    finally:
        opened.dispose()


@pytest.fixture
def sqlite_api(sqlite_store: Store, api_settings: Settings, bell: Bell) -> Iterator[TestClient]:
    """For what no database can change."""
    with TestClient(create_app(sqlite_store, api_settings, bell)) as client:
        yield client


@pytest.fixture
def untouched(sqlite_api: TestClient, sqlite_store: Store, finetune: Json) -> Iterator[None]:
    """A finished job and a queued one stand there, and are the same afterwards."""
    sqlite_api.post("/jobs", json=finetune)
    done = run_next(sqlite_store)
    sqlite_api.post("/jobs", json=finetune)
    before = (sqlite_store.list_jobs(), sqlite_store.result(done), sqlite_store.points())
    yield
    assert (sqlite_store.list_jobs(), sqlite_store.result(done), sqlite_store.points()) == before


@pytest.fixture
def nothing_kept(
    sqlite_api: TestClient, sqlite_store: Store, api_settings: Settings
) -> Iterator[None]:
    """However uploads ended, no file and no row is left of them."""
    yield
    assert leftovers(api_settings.home) == []
    uploads = api_settings.home / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []
    assert sqlite_store.list_adapters() == ([], False)


@pytest.fixture
def finetune() -> Json:
    """The smallest spec that fits the roots."""
    return {
        "type": "finetune",
        "base_model": "tiny",
        "dataset": {"path": "rows.jsonl"},
        "training": {"max_steps": 100, "batch_size": 8, "max_length": 64},
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }
