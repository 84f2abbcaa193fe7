"""Fitted laws: one per points, form and metric."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, Select, select

from service.errors import NotFound
from service.store.database import Database, upsert
from service.store.ids import new_id
from service.tables import epoch_now, laws


class Laws(Database):
    def law(self, law_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(_laws().where(laws.c.id == law_id)).one_or_none()
        if row is None:
            raise NotFound(f"no law {law_id}", id=law_id)
        return _body(row)

    def law_of_points(self, points_digest: str, form: str, metric: str) -> dict[str, Any] | None:
        """The stored fit of exactly these points."""
        with self._read() as connection:
            row = connection.execute(_same(points_digest, form, metric)).one_or_none()
        return None if row is None else _body(row)

    def add_law(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a fit; or return the one that is stored for its points, form and metric.

        `body` carries `points_digest`, `form`, `metric`, `group` and whatever else is to come
        back; `id` and `created_at` (epoch seconds) are set here.
        """
        rest = {key: value for key, value in body.items() if key not in ("id", "created_at")}
        key = (body["points_digest"], body["form"], body["metric"])
        with self._write() as connection:
            now = connection.execute(select(epoch_now())).scalar_one()
            connection.execute(
                upsert(connection, laws)
                .values(
                    id=new_id("law", at=now),
                    group=body.get("group"),
                    points_digest=key[0],
                    form=key[1],
                    metric=key[2],
                    body=rest,
                )
                .on_conflict_do_nothing(index_elements=["points_digest", "form", "metric"])
            )
            return _body(connection.execute(_same(*key)).one())

    def list_laws(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 20,
        after: str | None = None,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Newest first. `filters`: form, metric.

        Raises NotFound where `after` is no law.
        """
        query = _laws().order_by(laws.c.id.desc()).limit(limit + 1)
        for key, value in (filters or {}).items():
            query = query.where(laws.c[key] == value)
        if after is not None:
            query = query.where(laws.c.id < self.law(after)["id"])
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [_body(row) for row in rows[:limit]], len(rows) > limit


def _laws() -> Select[Any]:
    return select(laws.c.id, laws.c.created_at, laws.c.body)


def _same(points_digest: str, form: str, metric: str) -> Select[Any]:
    return _laws().where(
        laws.c.points_digest == points_digest, laws.c.form == form, laws.c.metric == metric
    )


def _body(row: Row[Any]) -> dict[str, Any]:
    return {**row.body, "id": row.id, "created_at": row.created_at}
