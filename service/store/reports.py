"""What an attempt reports while it runs: events, metrics, checkpoints, phase, progress."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from service.columns import epoch_now
from service.store.database import Database, upsert
from service.store.jobs import read_job
from service.store.moves import Event, record
from service.store.rows import Claim, EventRow, MetricRow
from service.tables import checkpoints, events, jobs, metrics

_SHOWN = [column for column in checkpoints.c if column.name not in ("job_id", "slot")]


class Reports(Database):
    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRow]:
        """In order, from the first id above `after`. Raises NotFound."""
        query = (
            select(events.c.id, events.c.at, events.c.kind, events.c.data)
            .where(events.c.job_id == job_id, events.c.id > after)
            .order_by(events.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            read_job(connection, job_id)
            rows = connection.execute(query).all()
        return [EventRow(**row._asdict()) for row in rows]

    def metrics(
        self, job_id: str, names: Iterable[str] | None = None
    ) -> dict[str, list[MetricRow]]:
        """Series by name, each by step. Raises NotFound."""
        query = (
            select(metrics.c.name, metrics.c.step, metrics.c.value, metrics.c.at)
            .where(metrics.c.job_id == job_id)
            .order_by(metrics.c.name, metrics.c.step)
        )
        if names is not None:
            query = query.where(metrics.c.name.in_(list(names)))
        series: dict[str, list[MetricRow]] = {}
        with self._read() as connection:
            read_job(connection, job_id)
            for name, step, value, at in connection.execute(query):
                series.setdefault(name, []).append(MetricRow(step, value, at))
        return series

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """Fields of `views.CheckpointView`, by step. Raises NotFound."""
        query = (
            select(*_SHOWN)
            .where(checkpoints.c.job_id == job_id)
            .order_by(func.coalesce(checkpoints.c.step, 0), checkpoints.c.slot)
        )
        with self._read() as connection:
            read_job(connection, job_id)
            return [row._asdict() for row in connection.execute(query)]


def write_reports(
    connection: Connection, claim: Claim, reported: Sequence[Mapping[str, Any]]
) -> None:
    """Store one beat's events; the caller has checked and locked the job's row."""
    happened: list[Event] = []
    shown: dict[str, Any] = {}
    for report in _newest_progress_only(reported):
        data = {key: value for key, value in report.items() if key != "kind"}
        kind = report["kind"]
        if kind == "phase":
            shown |= {"phase": data["phase"], "progress": None}
        elif kind == "progress":
            shown["progress"] = data
        elif kind == "checkpoint":
            _write_checkpoint(connection, claim, data)
        happened.append((kind, data))
    if happened:
        last = connection.execute(
            update(jobs)
            .where(jobs.c.id == claim.job_id)
            .values(last_event=jobs.c.last_event + len(happened), **shown)
            .returning(jobs.c.last_event)
        ).scalar_one()
        record(connection, claim.job_id, last, happened)
        _write_metrics(connection, claim.job_id, [d for kind, d in happened if kind == "metric"])


def _newest_progress_only(reported: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    last = max((i for i, r in enumerate(reported) if r["kind"] == "progress"), default=-1)
    return [r for i, r in enumerate(reported) if r["kind"] != "progress" or i == last]


def _write_metrics(
    connection: Connection, job_id: str, values: Sequence[Mapping[str, Any]]
) -> None:
    # A resumed attempt reports steps again: the newer value replaces the older.
    newest = {
        (value["name"], value["step"]): {
            "job_id": job_id,
            "name": value["name"],
            "step": value["step"],
            "value": value["value"],
        }
        for value in values
    }
    if newest:
        insert = upsert(connection, metrics)
        insert = insert.on_conflict_do_update(
            index_elements=["job_id", "name", "step"],
            set_={"value": insert.excluded.value, "at": epoch_now()},
        )
        connection.execute(insert, list(newest.values()))


def _write_checkpoint(connection: Connection, claim: Claim, data: Mapping[str, Any]) -> None:
    """Insert, or fill in the fields that are known by now."""
    row = {column.name: data.get(column.name) for column in _SHOWN}
    one_run = claim.spec.get("type") == "finetune"
    slot = f"{row['step'] or 0:09d}" if one_run else f"{row['step'] or 0:09d} {row['adapter']}"
    insert = upsert(connection, checkpoints).values(job_id=claim.job_id, slot=slot[:600], **row)
    filled = {name: func.coalesce(insert.excluded[name], checkpoints.c[name]) for name in row}
    connection.execute(insert.on_conflict_do_update(index_elements=["job_id", "slot"], set_=filled))
