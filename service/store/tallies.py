"""Counters of what results said. Deleting a job takes nothing away, so they only rise."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from service.store.database import Database, upsert
from service.tables import jobs, tallies
from service.tallying import tallies_of


class Tallies(Database):
    def tallies(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Values by labels, by name."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        query = select(tallies.c.name, tallies.c.labels, tallies.c.value)
        with self._read() as connection:
            for name, labels, value in connection.execute(query):
                found.setdefault(name, {})[tuple(json.loads(labels))] = value
        return found


def count_result(connection: Connection, job_id: str, result: Mapping[str, Any]) -> None:
    """Last in its transaction, and rows in one order: then nobody waits in a circle."""
    query = select(jobs.c.type, jobs.c.owner, jobs.c.created_at, jobs.c.started_at)
    job = connection.execute(query.where(jobs.c.id == job_id)).one()
    found = tallies_of(
        result,
        kind=job.type,
        owner=job.owner,
        waited_seconds=job.started_at - job.created_at,
    )
    for one in sorted(found, key=lambda tally: (tally.name, tally.labels)):
        insert = upsert(connection, tallies).values(
            name=one.name, labels=json.dumps(one.labels), value=one.amount
        )
        newer = insert.excluded.value
        value = newer if one.latest else tallies.c.value + newer
        connection.execute(
            insert.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": value})
        )
