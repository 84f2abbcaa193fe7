"""Stored law points, by recipe."""

from typing import Any

from sqlalchemy import or_, select

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
    ) -> list[PointGroup]:
        """Points of the groups that match every given field, each by rank, run, step.

        `base_model`, `dataset` and `corpus` match a name or a content digest.
        """
        query = (
            select(points, groups.c.recipe)
            .join(groups, groups.c.digest == points.c.group)
            .order_by(points.c.group, points.c.rank, points.c.job_id, points.c.step)
        )
        named = {"base_model": base_model, "dataset": dataset, "corpus": corpus}
        for field, value in named.items():
            if value is not None:
                digest = groups.c[f"{field.removesuffix('_model')}_digest"]
                query = query.where((groups.c[field] == value) | (digest == value))
        if group is not None:
            query = query.where(points.c.group == group)
        if sweep is not None:
            # The pilot that a sweep goes on from is a part of it.
            pilot = select(extensions.c.pilot_id).where(extensions.c.sweep_id == sweep)
            query = query.join(jobs, jobs.c.id == points.c.job_id)
            query = query.where(or_(jobs.c.sweep_id == sweep, jobs.c.sweep_id.in_(pilot)))
        found: dict[str, PointGroup] = {}
        with self._read() as connection:
            for row in connection.execute(query):
                point: dict[str, Any] = row._asdict()
                digest, recipe = point.pop("group"), point.pop("recipe")
                point["run"] = point.pop("job_id")
                found.setdefault(digest, PointGroup(digest, recipe)).points.append(point)
        return list(found.values())
