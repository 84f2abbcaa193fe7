"""Leases that ran out, and jobs that nobody was told of."""

from sqlalchemy import select

from service.columns import epoch_now
from service.store.attempts import retry_or_fail, worker_lost
from service.store.database import Database
from service.store.moves import CLAIMABLE, HELD
from service.store.rows import Claim
from service.tables import jobs


class Leases(Database):
    def reap(self) -> list[str]:
        """Take expired leases away, one short transaction each; ids of the jobs concerned.

        Cancel asked: cancelled. Budget of failures spent: failed, `worker_lost`. Else queued.
        """
        reaped: list[str] = []
        while (job_id := self._reap_one()) is not None:
            reaped.append(job_id)
        return reaped

    def _reap_one(self) -> str | None:
        # SKIP LOCKED: a frozen worker may hold its row, and other services reap as well.
        expired = (
            select(
                *(jobs.c.id, jobs.c.attempt, jobs.c.lease_token),
                *(jobs.c.spec, jobs.c.owner, jobs.c.failures),
            )
            .where(jobs.c.state.in_(HELD), jobs.c.lease_expires_at < epoch_now())
            .order_by(jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, key_share=True)
        )
        with self._write() as connection:
            row = connection.execute(expired).one_or_none()
            if row is None:
                return None
            claim = Claim(row.id, row.attempt, row.lease_token, row.spec, row.owner)
            error = worker_lost(row.failures + 1)
            retry_or_fail(connection, claim, error, budget=self.settings.max_failures)
            return claim.job_id

    def stale_queued(self, older_than_seconds: float, *, limit: int = 100) -> list[str]:
        """The oldest jobs that were claimable for so long and that nobody took."""
        query = (
            select(jobs.c.id)
            .where(
                jobs.c.state.in_(CLAIMABLE),
                jobs.c.type != "sweep",
                jobs.c.available_at <= epoch_now() - older_than_seconds,
            )
            .order_by(jobs.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return list(connection.execute(query).scalars())
