"""Whose rows a store shows. What is somebody else's is not found, as if it did not exist."""

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, true

_OPTION = "forgetting_access"


@dataclass(frozen=True)
class Access:
    owner: str = ""
    """Of what is made; "" without keys."""
    sees_all: bool = True
    max_jobs: int | None = None
    """Queued and running jobs, children of sweeps counted; None: as many as one likes."""

    @classmethod
    def of_job(cls, owner: str | None) -> Self:
        """What a job may work with, whoever asked for it and whoever runs it: its owner's. One of
        nobody, made without keys or by the bootstrap key, works with everything."""
        return cls(owner=owner or "", sees_all=not owner)


EVERYTHING = Access()
"""The sweeper's, everybody's where there are no keys, and the worker's but for what a job names."""


def option(access: Access) -> dict[str, Any]:
    """For `Connection.execution_options`, so that a query knows for whom it runs."""
    return {_OPTION: access}


def access_of(connection: Connection) -> Access:
    found: Access = connection.get_execution_options().get(_OPTION, EVERYTHING)
    return found


def mine(connection: Connection, owner: ColumnElement[str]) -> ColumnElement[bool]:
    """The WHERE clause on a table's `owner` column."""
    access = access_of(connection)
    return true() if access.sees_all else owner == access.owner
