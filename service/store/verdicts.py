"""What gates came to. A gate that failed or was cancelled came to `not_measurable`."""

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from service.jobs import RESUMABLE
from service.laws.verdict import Verdict
from service.store.database import Database, upsert
from service.tables import jobs, verdict_counts


class Verdicts(Database):
    def verdict_counts(self) -> dict[Verdict, int]:
        """How many gates ended so, deleted ones too; only rises. 0 for what none came to."""
        query = select(verdict_counts.c.verdict, verdict_counts.c.n)
        with self._read() as connection:
            found = {row.verdict: row.n for row in connection.execute(query)}
        return {verdict: found.get(verdict, 0) for verdict in Verdict}


def count_verdict(connection: Connection, verdict: str | None) -> None:
    """One more. No transaction ends two gates, so none waits here for one that waits for it."""
    one_more = upsert(connection, verdict_counts).values(
        verdict=verdict or Verdict.NOT_MEASURABLE, n=1
    )
    connection.execute(
        one_more.on_conflict_do_update(
            index_elements=["verdict"], set_={"n": verdict_counts.c.n + 1}
        )
    )


def came_to(verdict: str) -> ColumnElement[bool]:
    """Of gates."""
    if verdict != Verdict.NOT_MEASURABLE:
        return jobs.c.verdict == verdict
    unmeasured = and_(jobs.c.type == "gate", jobs.c.state.in_(sorted(RESUMABLE)))
    return or_(jobs.c.verdict == verdict, unmeasured)
