"""Whose rows a store shows. What is somebody else's is not found, as if it did not exist."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, true

_OPTION = "forgetting_access"


@dataclass(frozen=True)
class Access:
    owner: str = ""
    """Of what is made; "" without keys."""
    sees_all: bool = True
    max_jobs: int | None = None
    """Queued and running jobs, children of sweeps counted; None: as many as one likes."""


EVERYTHING = Access()
"""The worker's, the sweeper's, and everybody's where there are no keys."""


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
