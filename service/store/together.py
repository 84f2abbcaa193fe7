"""Writes of several threads in one transaction: one COMMIT, and one fsync, for all that wait.

Only on SQLite, which has one writer at a time; PostgreSQL does so by itself.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from service.errors import ForgettingError
from service.store.access import Access, option
from service.store.engine import writer_lock, writing

T = TypeVar("T")
Work = Callable[[Connection], Any]


@dataclass(eq=False)
class _Turn:
    access: Access
    work: Work
    is_done: bool = False
    value: Any = None


class Together:
    """Whoever gets the writer's lock does the work of all who wait for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Turn] = []
        self._guard = threading.Lock()

    def write(self, access: Access, work: Callable[[Connection], T]) -> T:
        """What `work` gave, once it is committed. It may be called twice, the first time rolled
        back; what it raises is raised here, and concerns nobody else."""
        if self._engine.dialect.name != "sqlite":
            with writing(self._engine, access) as connection:
                return work(connection)
        turn = _Turn(access, work)
        with self._guard:
            self._waiting.append(turn)
        with writer_lock(self._engine):
            if not turn.is_done:
                self._all(self._drawn(turn))
            if not turn.is_done:
                with writing(self._engine, access, locked=True) as connection:
                    return work(connection)
        value: T = turn.value
        return value

    def _drawn(self, turn: _Turn) -> list[_Turn]:
        """All that wait; none where this one has been drawn before, in vain."""
        with self._guard:
            if turn not in self._waiting:
                return []
            turns, self._waiting = self._waiting, []
            return turns

    def _all(self, turns: list[_Turn]) -> None:
        """Either all are done, or none; each then goes by itself."""
        if len(turns) < 2:
            return
        values = []
        try:
            with writing(self._engine, locked=True) as connection:
                for turn in turns:
                    connection.execution_options(**option(turn.access))
                    values.append(turn.work(connection))
        except (ForgettingError, SQLAlchemyError, ValueError):
            return  # whose fault it was shows when each goes by itself
        for turn, value in zip(turns, values, strict=True):
            turn.value, turn.is_done = value, True
