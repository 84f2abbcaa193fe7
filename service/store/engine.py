"""An engine as leases need it, and the one way to begin a transaction that writes."""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

from service.store.access import EVERYTHING, Access, option

BUSY_SECONDS = 10.0
CONNECTIONS = 15
"""At most, of one process; each is opened once it is needed, and kept."""
LOCK_TIMEOUT_MS = 5_000
IDLE_IN_TRANSACTION_MS = 10_000
_WRITES = "forgetting_writes"
_writer_locks: dict[str, threading.Lock] = {}
_writer_locks_guard = threading.Lock()


def database_url(url: str) -> URL:
    """The URL with its driver named. SQLite must be a file: threads share it.

    Raises ValueError for any other database.
    """
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if parsed.database in (None, "", ":memory:"):
            raise ValueError("the SQLite database must be a file: sqlite:////path/to/file")
        return parsed
    raise ValueError(f"{parsed.drivername}: only sqlite:// and postgresql:// URLs are supported")


def open_engine(url: str) -> Engine:
    """An engine with the durability and the time limits that leases need."""
    parsed = database_url(url)
    common: dict[str, Any] = {
        "pool_size": CONNECTIONS,
        "max_overflow": 0,  # such a connection would be opened and closed for one transaction
        "json_serializer": lambda value: json.dumps(value, allow_nan=False),
    }
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(
            parsed, connect_args={"connect_timeout": 5}, pool_pre_ping=True, **common
        )
        event.listen(engine, "connect", _limit_postgresql)
    else:
        Path(parsed.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS}, **common)
        event.listen(engine, "connect", _harden_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def autocommit(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _limit_postgresql(connection: Any, _: Any) -> None:
    # A process frozen inside a transaction must not hold up the rest.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
    connection.commit()


def _harden_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later can fail without waiting.
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def writer_lock(engine: Engine) -> AbstractContextManager[Any]:
    """SQLite's own lock polling is unfair between threads: queue them here."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    path = str(Path(engine.url.database or "").resolve())
    with _writer_locks_guard:
        return _writer_locks.setdefault(path, threading.Lock())


@contextmanager
def writing(
    engine: Engine, access: Access = EVERYTHING, *, locked: bool = False
) -> Iterator[Connection]:
    """A transaction that may write from its first statement on. `locked`: in `writer_lock`."""
    with (
        nullcontext() if locked else writer_lock(engine),
        engine.connect().execution_options(**{_WRITES: True}, **option(access)) as connection,
        connection.begin(),
    ):
        yield connection
