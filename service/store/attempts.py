"""One attempt at a job: claim, beat, and its one end. All but the claim is fenced."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, update

from service.columns import epoch_now
from service.errors import LeaseLost
from service.jobs import FailureClass, JobState
from service.store.database import Database
from service.store.moves import CLAIMABLE, HELD, announce, move, owned
from service.store.outcomes import write_outcome
from service.store.reports import write_reports
from service.store.rows import Claim, PointGroup
from service.store.sweeps import follow
from service.store.tallies import count_result
from service.tables import jobs


class Attempts(Database):
    def claim(self, worker: str) -> Claim | None:
        """Take the oldest claimable job, whichever id rang; None when there is none."""
        oldest = (
            select(jobs.c.id)
            .where(
                jobs.c.state.in_(CLAIMABLE),
                jobs.c.type != "sweep",
                jobs.c.available_at <= epoch_now(),
            )
            .order_by(jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        token = secrets.token_hex(16)
        with self._write() as connection:
            claimed = connection.execute(
                move(JobState.RUNNING)
                .where(jobs.c.id == oldest)
                .values(
                    attempt=jobs.c.attempt + 1,
                    lease_owner=worker,
                    lease_token=token,
                    lease_expires_at=epoch_now() + self.settings.lease_seconds,
                )
            ).one_or_none()
            if claimed is None:
                return None
            announce(connection, claimed, JobState.RUNNING, {"worker": worker})
            follow(connection, claimed.sweep_id)
            return Claim(claimed.id, claimed.attempt, token, claimed.spec, claimed.owner)

    def beat(self, claim: Claim, events: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Extend the lease and write what the child reported; true: stop, cancel was asked.

        Raises LeaseLost when this attempt no longer holds the job; nothing is written then.
        """
        with self._write() as connection:
            held = connection.execute(
                update(jobs)
                .where(owned(claim))
                .values(lease_expires_at=epoch_now() + self.settings.lease_seconds)
                .returning(jobs.c.cancel_requested)
            ).one_or_none()
            if held is None:
                raise _lost(claim)
            write_reports(connection, claim, events)
            return bool(held.cancel_requested)

    def release(self, claim: Claim, *, reason: str, delay_seconds: float = 0.0) -> None:
        """Give the job back without counting a failure; cancelled if that was asked.

        `delay_seconds`: not claimable before, e.g. while a disk is full.
        """
        with self._write() as connection:
            give_back(connection, claim, {"reason": reason}, delay_seconds=delay_seconds)

    def finish(
        self,
        claim: Claim,
        result: Mapping[str, Any],
        *,
        points: Sequence[PointGroup] = (),
        artifacts: Sequence[Mapping[str, Any]] = (),
        artifacts_prefix: str | None = None,
    ) -> None:
        """Record the one result, its law points and artifacts, and succeed; all or nothing."""
        with self._write() as connection:
            ended = _leave(
                connection,
                claim,
                JobState.SUCCEEDED,
                error=None,
                artifacts_prefix=artifacts_prefix,
                verdict=result.get("verdict"),
            )
            write_outcome(connection, claim, result, points=points, artifacts=artifacts)
            follow(connection, ended.sweep_id)
            count_result(connection, claim.job_id, result)

    def fail(self, claim: Claim, error: Mapping[str, Any], *, retry: bool = False) -> None:
        """End in failure; with `retry`, queue again while the budget of failures lasts."""
        with self._write() as connection:
            if retry:
                retry_or_fail(connection, claim, error, budget=self.settings.max_failures)
            else:
                _end(connection, claim, JobState.FAILED, error=dict(error))

    def finish_cancelled(self, claim: Claim) -> None:
        """The child has stopped, as was asked."""
        with self._write() as connection:
            _end(connection, claim, JobState.CANCELLED, cancel_requested=True)


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(
        f"attempt {claim.attempt} no longer holds {claim.job_id}", attempt=claim.attempt
    )


def _leave(
    connection: Connection,
    claim: Claim,
    target: JobState,
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> Row[Any]:
    """From `running` to `target`, if the claim still holds. The sweep has yet to follow."""
    left = connection.execute(
        move(target, leaving=HELD).where(owned(claim)).values(**values)
    ).one_or_none()
    if left is None:
        raise _lost(claim)
    announce(connection, left, target, data)
    return left


def _end(
    connection: Connection,
    claim: Claim,
    target: JobState,
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    left = _leave(connection, claim, target, data, **values)
    follow(connection, left.sweep_id)


def give_back(
    connection: Connection,
    claim: Claim,
    data: Mapping[str, Any],
    *,
    delay_seconds: float = 0.0,
    **values: Any,
) -> None:
    """To queued; or, where cancel was asked, to cancelled: nobody is left to hear of it."""
    if _cancel_requested(connection, claim):
        _end(connection, claim, JobState.CANCELLED, data)
    else:
        values["available_at"] = epoch_now() + delay_seconds
        _end(connection, claim, JobState.QUEUED, data, **values)


def retry_or_fail(
    connection: Connection, claim: Claim, error: Mapping[str, Any], *, budget: int
) -> None:
    """Count a failure; to failed when `budget` of them are spent, else give back."""
    failures = connection.execute(
        update(jobs)
        .where(owned(claim))
        .values(failures=jobs.c.failures + 1)
        .returning(jobs.c.failures)
    ).scalar_one_or_none()
    if failures is None:
        raise _lost(claim)
    if failures >= budget and not _cancel_requested(connection, claim):
        _end(connection, claim, JobState.FAILED, error=dict(error))
    else:
        give_back(connection, claim, {"reason": error.get("code"), "failures": failures})


def _cancel_requested(connection: Connection, claim: Claim) -> bool:
    # The row stays locked, so the answer holds until the move.
    return bool(
        connection.execute(
            select(jobs.c.cancel_requested).where(owned(claim)).with_for_update(key_share=True)
        ).scalar_one_or_none()
    )


def worker_lost(failures: int) -> dict[str, Any]:
    detail = f"the worker stopped answering; failure {failures} of this job"
    return {"code": "worker_lost", "detail": detail, "class": FailureClass.SYSTEM}
