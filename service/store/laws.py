"""Fitted laws: one per owner, fit digest, form and metric. Within a series they are versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, func, select

from service.errors import NotFound
from service.store.access import mine
from service.store.database import Database, clock, upsert
from service.store.ids import new_id
from service.tables import laws

SET_HERE = ("id", "created_at", "version", "supersedes")


class Laws(Database):
    def law(self, law_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        with self._read() as connection:
            query = _laws().where(laws.c.id == law_id, mine(connection, laws.c.owner))
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"no law {law_id}", id=law_id)
        return _body(row)

    def laws_of_fit(self, fit_digest: str, metric: str) -> dict[str, dict[str, Any]]:
        """By form, what is stored for exactly these points."""
        query = _laws().where(
            laws.c.owner == self.access.owner,
            laws.c.fit_digest == fit_digest,
            laws.c.metric == metric,
        )
        with self._read() as connection:
            bodies = [_body(row) for row in connection.execute(query)]
        return {body["form"]: body for body in bodies}

    def add_law(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a fit; or return the one that is stored for its fit digest, form and metric.

        `body` carries `fit_digest`, `form`, `metric`, `group`, `series` (null: of no series) and
        whatever else is to come back. Set here: `id`, `created_at` (epoch seconds), and within
        its series `version` (from 1) and `supersedes`, the id of the version before.
        """
        rest = {key: value for key, value in body.items() if key not in SET_HERE}
        key = {name: body[name] for name in ("fit_digest", "form", "metric")}
        key["owner"] = self.access.owner
        with self._write() as connection:
            now = clock(connection)
            connection.execute(
                upsert(connection, laws)
                .values(
                    id=new_id("law", at=now),
                    group=body.get("group"),
                    series=body.get("series"),
                    body=rest,
                    **key,
                )
                .on_conflict_do_nothing(index_elements=list(key))
            )
            same = [laws.c[name] == value for name, value in key.items()]
            return _body(connection.execute(_laws().where(*same)).one())

    def list_laws(
        self,
        filters: Mapping[str, str | Sequence[str] | None] | None = None,
        *,
        limit: int = 20,
        after: str | None = None,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Newest first. `filters`: form, metric, group; several values mean any of them.

        A law of a group but of no series serves one residual, and is not listed.

        Raises NotFound where `after` is no law.
        """
        query = _laws().order_by(laws.c.id.desc()).limit(limit + 1)
        query = query.where(laws.c.group.is_(None) | laws.c.series.is_not(None))
        for key, value in (filters or {}).items():
            one = value is None or isinstance(value, str)
            query = query.where(laws.c[key] == value if one else laws.c[key].in_(value or ()))
        if after is not None:
            query = query.where(laws.c.id < self.law(after)["id"])
        with self._read() as connection:
            rows = connection.execute(query.where(mine(connection, laws.c.owner))).all()
        return [_body(row) for row in rows[:limit]], len(rows) > limit


def _laws() -> Select[Any]:
    """With the place of each in its series. Ids sort by creation, so no counter has to be kept."""
    earlier = laws.alias("earlier")
    before = and_(
        earlier.c.owner == laws.c.owner,
        earlier.c.series == laws.c.series,
        earlier.c.form == laws.c.form,
        earlier.c.metric == laws.c.metric,
        earlier.c.id < laws.c.id,
    )
    n_before = select(func.count()).select_from(earlier).where(before).scalar_subquery()
    last = select(func.max(earlier.c.id)).where(before).scalar_subquery()
    return select(
        laws.c.id,
        laws.c.created_at,
        laws.c.series,
        n_before.label("n_before"),
        last.label("supersedes"),
        laws.c.body,
    )


def _body(row: Row[Any]) -> dict[str, Any]:
    return {
        **row.body,
        "id": row.id,
        "created_at": row.created_at,
        "version": None if row.series is None else row.n_before + 1,
        "supersedes": row.supersedes,
    }
