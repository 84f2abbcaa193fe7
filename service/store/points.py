"""Stored law points, by recipe. A checkpoint that two jobs measured is one point: the newer."""

from typing import Any

from sqlalchemy import or_, select

from service.errors import NotFound
from service.store.access import mine
from service.store.database import Database
from service.store.rows import PointGroup
from service.tables import extensions, groups, jobs, points


class Points(Database):
    def points(
        self,
        *,
        base_model: str | None = None,
        dataset: str | None = None,
        corpus: str | None = None,
        group: str | None = None,
        sweep: str | None = None,
        job: str | None = None,
    ) -> list[PointGroup]:
        """Points of the groups that match every given field, each by rank, run, step.

        `sweep` and `job` choose points, the others whole groups.

        `base_model`, `dataset` and `corpus` match a name or a content digest.
        """
        query = (
            select(points, groups.c.recipe)
            .join(groups, groups.c.digest == points.c.group)
            .join(jobs, jobs.c.id == points.c.job_id)
            .order_by(
                points.c.group,
                points.c.rank,
                points.c.run,
                points.c.trainable_params,
                points.c.step,
                points.c.job_id,
            )
        )
        named = {"base_model": base_model, "dataset": dataset, "corpus": corpus}
        for field, value in named.items():
            if value is not None:
                digest = groups.c[f"{field.removesuffix('_model')}_digest"]
                query = query.where((groups.c[field] == value) | (digest == value))
        if group is not None:
            query = query.where(points.c.group == group)
        if job is not None:
            query = query.where(points.c.job_id == job)
        if sweep is not None:
            # The pilot that a sweep goes on from is a part of it.
            pilot = select(extensions.c.pilot_id).where(extensions.c.sweep_id == sweep)
            query = query.where(or_(jobs.c.sweep_id == sweep, jobs.c.sweep_id.in_(pilot)))
        found: dict[str, PointGroup] = {}
        with self._read() as connection:
            for row in connection.execute(query.where(mine(connection, jobs.c.owner))):
                point: dict[str, Any] = row._asdict()
                digest, recipe = point.pop("group"), point.pop("recipe")
                del point["job_id"]
                kept = found.setdefault(digest, PointGroup(digest, recipe)).points
                if kept and _place(kept[-1]) == _place(point):
                    kept.pop()
                kept.append(point)
        return list(found.values())

    def recipe(self, group: str) -> dict[str, Any]:
        """What the points of a stored group have in common. Raises NotFound, also where they are
        all somebody else's."""
        query = select(groups.c.recipe).where(groups.c.digest == group)
        own = select(points.c.job_id).join(jobs, jobs.c.id == points.c.job_id)
        own = own.where(points.c.group == group, jobs.c.owner == self.access.owner)
        if not self.access.sees_all:
            query = query.where(own.exists())
        with self._read() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise NotFound(f"no group {group}", id=group)
        return found


def _place(point: dict[str, Any]) -> tuple[Any, ...]:
    return point["run"], point["trainable_params"], point["step"]
