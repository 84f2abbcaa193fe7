"""Jobs as rows: submit, show, list, delete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, or_, select

from service.digest import json_digest
from service.errors import IdempotencyKeyReused, NotFound, StillRunning
from service.jobs import TERMINAL, JobState
from service.pilot import children_of
from service.schemas.spec import FinetuneSpec, Spec, SweepSpec
from service.store.access import mine
from service.store.adapters import require_uploads
from service.store.database import UPSERTS, Database, clock
from service.store.ids import new_id
from service.store.moves import record
from service.store.room import require_room
from service.store.rows import JobRow
from service.store.verdicts import came_to
from service.tables import extensions, job_metadata, jobs


class Jobs(Database):
    def add_job(
        self,
        spec: Spec,
        *,
        idempotency_key: str | None = None,
        owner: str | None = None,
    ) -> tuple[JobRow, bool]:
        """Queue a job, a sweep with all its children. True: this key's job was there already.

        `owner`: default, whoever the store is seen by. Raises IdempotencyKeyReused when the key
        came with another spec, TooManyJobs, and InvalidSpec for a pilot that cannot be.
        """
        owner = self.access.owner if owner is None else owner
        digest = json_digest(_body(spec))
        children = children_of(spec) if isinstance(spec, SweepSpec) else []

        def add(connection: Connection) -> tuple[JobRow, bool]:
            job = _add(connection, spec, children, digest, owner=owner, key=idempotency_key)
            if job is not None:
                return job, False
            assert idempotency_key is not None
            earlier = _of_key(connection, idempotency_key, digest, owner)
            assert earlier is not None
            return earlier, True

        return self._write_together(add)

    def add_extension(
        self,
        pilot_id: str,
        spec: SweepSpec,
        children: Sequence[FinetuneSpec],
        *,
        owner: str | None = None,
    ) -> tuple[JobRow, bool]:
        """Queue the sweep that goes on from a pilot. True: the pilot has one already.

        Raises NotFound, TooManyJobs.
        """
        owner = self.access.owner if owner is None else owner
        digest = json_digest(_body(spec))
        with self._write() as connection:
            # Locked, so that of two who ask at once the second finds what the first made.
            lock = select(jobs.c.id).where(jobs.c.id == pilot_id).with_for_update()
            connection.execute(lock)
            read_job(connection, pilot_id)
            made = select(extensions.c.sweep_id).where(extensions.c.pilot_id == pilot_id)
            earlier = connection.execute(made).scalar_one_or_none()
            if earlier is not None:
                return read_job(connection, earlier), True
            job = _add(connection, spec, children, digest, owner=owner)
            assert job is not None
            connection.execute(insert(extensions).values(pilot_id=pilot_id, sweep_id=job.id))
            return job, False

    def job_of_key(
        self,
        idempotency_key: str,
        spec: Spec,
        *,
        owner: str | None = None,
    ) -> JobRow | None:
        """The job that this key and spec made; None for a new key. Raises IdempotencyKeyReused."""
        owner = self.access.owner if owner is None else owner
        with self._read() as connection:
            return _of_key(connection, idempotency_key, json_digest(_body(spec)), owner)

    def job(self, job_id: str) -> JobRow:
        """Raises NotFound."""
        with self._read() as connection:
            return read_job(connection, job_id)

    def list_jobs(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        status: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name on the wire
        base_model: str | None = None,
        sweep: str | None = None,
        metadata: Mapping[str, str] | None = None,
        verdict: str | None = None,
        owner: str | None = None,
    ) -> tuple[list[JobRow], bool]:
        """Newest first, from the one after `after`. True: there are more.

        `verdict`: only gates that came to it. Raises NotFound where `after` is no job.
        """
        wanted = {"state": status, "type": type, "base_model": base_model, "owner": owner}
        pairs = [_pair(key, value) for key, value in (metadata or {}).items()]
        query, key = _jobs(), jobs.c.id
        if pairs:
            # The pair's own index gives the order: few matches among many jobs are found at once.
            query = query.join(job_metadata, job_metadata.c.job_id == jobs.c.id)
            query, key = query.where(job_metadata.c.pair == pairs[0]), job_metadata.c.job_id
        for pair in pairs[1:]:
            other = job_metadata.alias()
            also = select(other.c.pair).where(other.c.job_id == jobs.c.id, other.c.pair == pair)
            query = query.where(also.exists())
        for column, value in (wanted | {"sweep_id": sweep}).items():
            if value is not None:
                query = query.where(jobs.c[column] == value)
        if verdict is not None:
            query = query.where(came_to(verdict))
        with self._read() as connection:
            query = query.where(mine(connection, jobs.c.owner))
            if after is not None:
                query = query.where(key < read_job(connection, after).id)
            rows = connection.execute(query.order_by(key.desc()).limit(limit + 1)).all()
        return [_row(row) for row in rows[:limit]], len(rows) > limit

    def delete_job(self, job_id: str) -> JobRow:
        """Delete a finished job, its results and points; a sweep with its children.

        The row comes back so that the caller can remove what lies under `artifacts_prefix`.
        Raises NotFound, or StillRunning also where a child, the child's sweep, or the sweep that
        goes on from it is unfinished: that one measures only what is not here.
        """
        with self._write() as connection:
            job = read_job(connection, job_id)
            own = [job_id, job.sweep_id]
            family = connection.execute(
                select(jobs.c.id, jobs.c.state)
                .where(or_(jobs.c.id.in_(own), jobs.c.sweep_id == job_id))
                .order_by(jobs.c.sweep_id.is_(None), jobs.c.id)  # children first
                .with_for_update()
            ).all()
            onward = connection.execute(
                select(jobs.c.id, jobs.c.state)
                .join(extensions, extensions.c.sweep_id == jobs.c.id)
                .where(extensions.c.pilot_id.in_(own))
            ).all()
            for other, state in [*family, *onward]:
                if state not in TERMINAL:
                    raise StillRunning(f"{other} is {state}; cancel it first", job=other)
            connection.execute(delete(jobs).where(jobs.c.id == job_id))
            return job

    def job_counts(self) -> dict[tuple[str, JobState], int]:
        """How many jobs there are per (type, state)."""
        with self._read() as connection:
            rows = connection.execute(
                select(jobs.c.type, jobs.c.state, func.count()).group_by(jobs.c.type, jobs.c.state)
            ).all()
        return {(type_, JobState(state)): n for type_, state, n in rows}

    def oldest_queued(self) -> float | None:
        """Since when the job that waits longest could be taken, epoch seconds.

        A sweep's own row never waits, its children do.
        """
        query = select(func.min(jobs.c.available_at)).where(
            jobs.c.state == JobState.QUEUED, jobs.c.type != "sweep"
        )
        with self._read() as connection:
            oldest: float | None = connection.execute(query).scalar_one()
        return oldest


def read_job(connection: Connection, job_id: str) -> JobRow:
    """Raises NotFound, also where the job is not for the connection's eyes."""
    query = _jobs().where(jobs.c.id == job_id, mine(connection, jobs.c.owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"no job {job_id}", id=job_id)
    return _row(row)


def _of_key(connection: Connection, key: str, digest: str, owner: str) -> JobRow | None:
    earlier = connection.execute(
        select(jobs.c.id, jobs.c.spec_digest).where(
            jobs.c.owner == owner, jobs.c.idempotency_key == key
        )
    ).one_or_none()
    if earlier is None:
        return None
    if earlier.spec_digest != digest:
        raise IdempotencyKeyReused(
            f"the Idempotency-Key {key!r} belongs to {earlier.id}, whose spec is another one",
            param="Idempotency-Key",
            job=earlier.id,
        )
    return read_job(connection, earlier.id)


def _pair(key: str, value: str) -> str:
    return hashlib.sha256(json.dumps([key, value]).encode()).hexdigest()


def _body(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json")


def _add(
    connection: Connection,
    spec: Spec,
    children: Sequence[FinetuneSpec],
    digest: str,
    *,
    owner: str,
    key: str | None = None,
) -> JobRow | None:
    """The new job, its children inserted in order; None where the key is taken."""
    now = clock(connection)
    job = _insert(connection, spec, now, digest, owner=owner, idempotency_key=key)
    if job is None:
        return None
    for child in children:
        own = json_digest(_body(child))
        _insert(connection, child, now, own, owner=owner, sweep_id=job.id)
    require_room(connection)
    return job


def _insert(
    connection: Connection,
    spec: Spec,
    now: float,
    digest: str,
    *,
    owner: str,
    idempotency_key: str | None = None,
    sweep_id: str | None = None,
) -> JobRow | None:
    """The new job; None where the key is taken."""
    values = {
        "id": new_id("job", at=now),
        "owner": owner,
        "type": spec.type,
        "state": JobState.QUEUED,
        "base_model": spec.base_model,
        "sweep_id": sweep_id,
        "idempotency_key": idempotency_key,
        "spec": _body(spec),
        "spec_digest": digest,
        "last_event": 1,
    }
    new = connection.execute(_NEW_JOB[connection.dialect.name], values).one_or_none()
    if new is None:
        return None
    require_uploads(connection, spec)
    if spec.metadata:
        connection.execute(
            insert(job_metadata),
            [{"job_id": new.id, "pair": _pair(key, value)} for key, value in spec.metadata.items()],
        )
    record(connection, new.id, 1, [("status", {"status": JobState.QUEUED, "attempt": 0})])
    return _row(new)


_COLUMNS = [column for column in jobs.c if column.name in JobRow.__dataclass_fields__]
# Built once: SQLAlchemy finds the SQL of a statement that it has seen, and compares new ones.
_NEW_JOB = {
    dialect: insert_into(jobs)
    .on_conflict_do_nothing(index_elements=["owner", "idempotency_key"])
    .returning(*_COLUMNS)
    for dialect, insert_into in UPSERTS.items()
}


def _jobs() -> Select[Any]:
    return select(*_COLUMNS)


def _row(row: Row[Any]) -> JobRow:
    fields = row._asdict()
    fields["state"] = JobState(fields["state"])
    return JobRow(metadata=fields["spec"]["metadata"], **fields)
