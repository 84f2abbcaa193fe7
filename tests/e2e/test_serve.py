"""`forgetting-service serve`: says when it is ready, refuses in one sentence, leaves nothing."""

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.house import ROOT, house


def run(*arguments: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.command", *arguments],
        env={"PYTHONPATH": str(ROOT), "FORGETTING_HOME": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_nothing_is_left_running(tmp_path: Path, ending: str) -> None:
    with house(tmp_path) as home:
        home.until(lambda: home.client.get("/readyz").status_code == 200)
        family = home.family()
        kinds = [one.cmdline() for one in family]
        assert any("service.embedded" in arguments for arguments in kinds)
        assert any("--one" in arguments for arguments in kinds)
        asked = time.monotonic()
        home.process.send_signal(signal.Signals[ending])
        code = home.process.wait(15)
        _, left = psutil.wait_procs(family, timeout=15)
        assert left == []
        assert time.monotonic() - asked < 10
        assert code == (-signal.SIGKILL if ending == "SIGKILL" else 0)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), folder=tmp_path)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "--port" in done.stderr


def test_it_does_not_listen_beyond_loopback_without_a_key(tmp_path: Path) -> None:
    done = run("serve", "--host", "0.0.0.0", folder=tmp_path)
    assert done.returncode == 1
    assert "FORGETTING_API_KEY" in done.stderr


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    assert run("migrate", folder=tmp_path).returncode == 0
    file = tmp_path / "forgetting.sqlite3"
    connection = sqlite3.connect(file)
    connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.commit()
    connection.close()
    done = run("serve", "--port", "0", folder=tmp_path)
    assert done.returncode == 1
    assert "newer version" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_silent_broker_is_named_without_its_password(tmp_path: Path) -> None:
    broker = "redis://:planted-secret@127.0.0.1:1/0"
    done = run("serve", "--port", "0", folder=tmp_path, FORGETTING_REDIS_URL=broker)
    assert done.returncode == 1
    assert "127.0.0.1:1/0" in done.stderr
    assert "planted-secret" not in done.stderr


def test_check_says_what_works_and_what_does_not(tmp_path: Path) -> None:
    assert run("check", folder=tmp_path).returncode == 0
    done = run("check", folder=tmp_path, FORGETTING_ARTIFACTS_URL="nonsense://x")
    assert done.returncode == 1
    assert "FAIL  artifacts" in done.stderr
