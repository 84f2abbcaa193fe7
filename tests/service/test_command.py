"""`forgetting-service` and `python -m worker` refuse in one sentence, before anything starts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.settings import Settings
from service.store import Store

ROOT = Path(__file__).parent.parent.parent
REDIS = {"FORGETTING_REDIS_URL": "redis://127.0.0.1:1/0"}


def environment(folder: Path, changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "FORGETTING_HOME": str(folder), "PYTHONPATH": str(ROOT), **changes}


def refusal(folder: Path, *command: str, **changes: str) -> str:
    """What stderr says; nothing else may happen."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment(folder, changes),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("command", [("service.command", "check"), ("worker",)], ids=str)
def test_a_malformed_list_is_refused(tmp_path: Path, command: tuple[str, ...]) -> None:
    said = refusal(tmp_path, *command, FORGETTING_MODEL_ROOTS='["/models"')
    assert "FORGETTING_MODEL_ROOTS" in said
    assert '["/models"]' in said


def test_a_worker_without_a_database_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, "service.command", "worker", **REDIS)
    assert "FORGETTING_DATABASE_URL" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_artifacts_that_cannot_be_written_are_refused(tmp_path: Path, command: str) -> None:
    changes = REDIS | {"FORGETTING_DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"}
    changes |= {"FORGETTING_ARTIFACTS_URL": "nonsense://x", "FORGETTING_PORT": "0"}
    assert "artifact store nonsense://x" in refusal(tmp_path, "service.command", command, **changes)


def test_a_worker_waits_for_the_tables_and_says_so_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'late.sqlite3'}"
    code = (
        "from service.command import _await_tables\n"
        "from service.settings import settings\n"
        "_await_tables(settings())\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(tmp_path, {"FORGETTING_DATABASE_URL": url}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    try:
        said = waiting.stderr.readline()
        assert "forgetting-service migrate" in said
        time.sleep(1.5)
        assert waiting.poll() is None
        store = Store(url, Settings())
        store.migrate()
        store.dispose()
        assert waiting.wait(30) == 0
        assert waiting.stderr.read() == ""
    finally:
        waiting.kill()
        waiting.wait()
        waiting.stderr.close()
