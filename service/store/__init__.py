"""The record of truth. All SQL is here, one file per noun; nothing else knows a table.

Promise: at-least-once execution, exactly-once recorded result.
"""

from copy import copy
from typing import Self

from service.migrations import is_migrated, migrate
from service.store.access import Access
from service.store.adapters import Adapters
from service.store.attempts import Attempts
from service.store.jobs import Jobs
from service.store.keys import Keys
from service.store.laws import Laws
from service.store.leases import Leases
from service.store.outcomes import Outcomes
from service.store.points import Points
from service.store.reports import Reports
from service.store.rows import (
    ChildRow,
    Claim,
    EventRow,
    JobRow,
    KeyRow,
    MetricRow,
    PointGroup,
    WorkerRow,
)
from service.store.stops import Stops
from service.store.sweeps import Sweeps
from service.store.tallies import Tallies
from service.store.verdicts import Verdicts
from service.store.workers import Workers

__all__ = [
    "Access",
    "ChildRow",
    "Claim",
    "EventRow",
    "JobRow",
    "KeyRow",
    "MetricRow",
    "PointGroup",
    "Store",
    "WorkerRow",
]


class Store(
    Jobs,
    Sweeps,
    Stops,
    Attempts,
    Leases,
    Reports,
    Outcomes,
    Verdicts,
    Tallies,
    Points,
    Laws,
    Adapters,
    Workers,
    Keys,
):
    """`Store(url)`; safe to share between threads. Every method is one transaction."""

    def seen_by(self, access: Access) -> Self:
        """The same database, of which only what `access` may see is there."""
        seen = copy(self)
        seen.access = access
        return seen

    def migrate(self) -> None:
        """Bring the database to the newest schema; safe to call from many processes at once."""
        migrate(self.engine)

    def is_migrated(self) -> bool:
        """Whether `migrate` would find nothing to do. Raises SystemFault."""
        with self._read() as connection:
            return is_migrated(connection)
