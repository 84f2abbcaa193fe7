"""What a finished job leaves: its result, its artifacts, its law points."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from service.errors import NotFinished
from service.jobs import TERMINAL
from service.store.database import Database, upsert
from service.store.jobs import read_job
from service.store.rows import Claim, PointGroup
from service.tables import artifacts, groups, points, results


class Outcomes(Database):
    def result(self, job_id: str) -> dict[str, Any]:
        """The recorded result. Raises NotFound, NotFinished."""
        with self._read() as connection:
            job = read_job(connection, job_id)
            body: dict[str, Any] | None = connection.execute(
                select(results.c.body).where(results.c.job_id == job_id)
            ).scalar_one_or_none()
        if body is None:
            never = "and has no result" if job.state in TERMINAL else "and has no result yet"
            raise NotFinished(f"{job_id} is {job.state} {never}", status=job.state)
        return body

    def results(self, job_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Recorded results by job; of those that have one."""
        query = select(results.c.job_id, results.c.body).where(results.c.job_id.in_(job_ids))
        with self._read() as connection:
            return {row.job_id: row.body for row in connection.execute(query)}

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """{name, bytes, sha256} each, by name. Raises NotFound."""
        query = (
            select(artifacts.c.name, artifacts.c.bytes, artifacts.c.sha256)
            .where(artifacts.c.job_id == job_id)
            .order_by(artifacts.c.name)
        )
        with self._read() as connection:
            read_job(connection, job_id)
            return [row._asdict() for row in connection.execute(query)]


def write_outcome(
    connection: Connection,
    claim: Claim,
    result: Mapping[str, Any],
    *,
    points: Sequence[PointGroup],
    artifacts: Sequence[Mapping[str, Any]],
) -> None:
    """Inserts only: a second result for one job violates the primary key."""
    job_id = claim.job_id
    connection.execute(
        insert(results).values(job_id=job_id, attempt=claim.attempt, body=dict(result))
    )
    _write_artifacts(connection, job_id, artifacts)
    for group in points:
        _write_points(connection, job_id, group)


def _write_artifacts(
    connection: Connection, job_id: str, kept: Sequence[Mapping[str, Any]]
) -> None:
    if kept:
        rows = [
            {"job_id": job_id, "name": a["name"], "bytes": a["bytes"], "sha256": a["sha256"]}
            for a in kept
        ]
        connection.execute(insert(artifacts), rows)


def _write_points(connection: Connection, job_id: str, measured: PointGroup) -> None:
    names = ("base_model", "base_digest", "dataset", "dataset_digest", "corpus", "corpus_digest")
    recipe = measured.recipe
    connection.execute(
        upsert(connection, groups)
        .values(digest=measured.group, recipe=recipe, **{name: recipe[name] for name in names})
        .on_conflict_do_nothing(index_elements=["digest"])
    )
    columns = [column.name for column in points.c if column.name not in ("job_id", "group")]
    connection.execute(
        insert(points),
        [
            {
                "job_id": job_id,
                "group": measured.group,
                **{name: point.get(name) for name in columns},
            }
            for point in measured.points
        ],
    )
