"""One engine, with a way to read and a way to write. Every write is one short transaction."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.columns import epoch_now
from service.errors import SystemFault
from service.settings import Settings
from service.settings import settings as process_settings
from service.store.access import EVERYTHING, option
from service.store.engine import autocommit, open_engine, writing
from service.store.together import Together

T = TypeVar("T")
Insert = postgresql.Insert | sqlite.Insert
UPSERTS: dict[str, Callable[[Table], Insert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}
"""INSERT that can take ON CONFLICT, by dialect; both spell it alike."""


def clock(connection: Connection) -> float:
    """The database's time, epoch seconds. SQLite's is this machine's, and takes no statement."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(_NOW).scalar_one())


_NOW = select(epoch_now())


class Database:
    """What every noun of the store stands on.

    SystemFault (code `system_fault`) when the database is away, locked, broken or without our
    tables; whatever the transaction meant to write may then be retried, since each is conditional
    on the row's state.
    """

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        self.settings = settings or process_settings()
        self.engine = open_engine(url)
        # The same connections; for one SELECT, BEGIN and ROLLBACK are two round trips in vain.
        # SQLite's driver is in that mode already.
        is_sqlite = self.engine.dialect.name == "sqlite"
        self._reader: Engine = self.engine if is_sqlite else autocommit(self.engine)
        self._together = Together(self.engine)
        self.access = EVERYTHING

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """Each statement sees what is committed before it; there is no transaction around them."""
        with _faults(), self._reader.connect() as connection:
            yield connection.execution_options(**option(self.access))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _faults(), writing(self.engine, self.access) as connection:
            yield connection

    def _write_together(self, work: Callable[[Connection], T]) -> T:
        """`_write` for what many threads do at once. `work` may be called twice: `Together`."""
        with _faults():
            return self._together.write(self.access, work)

    def ping(self) -> float:
        """The database's time, epoch seconds."""
        with self._read() as connection:
            return float(connection.execute(_NOW).scalar_one())

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, DataError):
        raise  # the statement's own fault, which waiting does not mend
    except (DBAPIError, PoolTimeout) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise SystemFault(f"database: {reason}") from error


def upsert(connection: Connection, table: Table) -> Insert:
    """One of UPSERTS."""
    return UPSERTS[connection.dialect.name](table)
