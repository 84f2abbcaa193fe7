"""Uploaded adapters, each content once per owner and layout of the base."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select

from service.errors import AdapterInUse, AdapterUnreadable, NotFound
from service.jobs import TERMINAL, JobState
from service.schemas.candidates import UploadedAdapter
from service.schemas.spec import CandidatesSpec, Spec
from service.store.access import access_of, mine
from service.store.database import Database, clock, upsert
from service.store.ids import new_id
from service.store.rows import AdapterRow
from service.tables import adapters, jobs

MEASURING = ("evaluate", "gate")
AT_WORK = [state for state in JobState if state not in TERMINAL]


class Adapters(Database):
    def adapter(self, adapter_id: str) -> AdapterRow:
        """Raises NotFound."""
        with self._read() as connection:
            query = _adapters().where(adapters.c.id == adapter_id)
            row = connection.execute(query.where(mine(connection, adapters.c.owner))).one_or_none()
        if row is None:
            raise NotFound(f"no adapter {adapter_id}", id=adapter_id)
        return _row(row)

    def adapter_of(
        self, digest: str, base_layout: str, *, owner: str | None = None
    ) -> AdapterRow | None:
        """The stored adapter of exactly this content, checked against such a base."""
        owner = self.access.owner if owner is None else owner
        with self._read() as connection:
            row = connection.execute(_same(owner, digest, base_layout)).one_or_none()
        return None if row is None else _row(row)

    def add_adapter(
        self,
        *,
        digest: str,
        base_model: str,
        revision: str | None,
        base_layout: str,
        rank: int,
        trainable_params: int,
        n_bytes: int,
        prefix: str,
        owner: str | None = None,
    ) -> AdapterRow:
        """The new row, or the one that is there for its owner, content and base: the caller then
        removes what it put under its own `prefix`."""
        owner = self.access.owner if owner is None else owner
        with self._write() as connection:
            now = clock(connection)
            # The empty update lets the row that is there be returned, too.
            row = connection.execute(
                upsert(connection, adapters)
                .values(
                    id=new_id("adp", at=now),
                    owner=owner,
                    digest=digest,
                    base_model=base_model,
                    revision=revision,
                    base_layout=base_layout,
                    rank=rank,
                    trainable_params=trainable_params,
                    bytes=n_bytes,
                    prefix=prefix,
                )
                .on_conflict_do_update(
                    index_elements=["owner", "digest", "base_layout"], set_={"owner": owner}
                )
                .returning(adapters)
            ).one()
            return _row(row)

    def list_adapters(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        base_model: str | None = None,
        digest: str | None = None,
    ) -> tuple[list[AdapterRow], bool]:
        """Newest first, from the one after `after`. True: there are more.

        Raises NotFound where `after` is no adapter.
        """
        query = _adapters().order_by(adapters.c.id.desc()).limit(limit + 1)
        for name, value in {"base_model": base_model, "digest": digest}.items():
            if value is not None:
                query = query.where(adapters.c[name] == value)
        if after is not None:
            query = query.where(adapters.c.id < self.adapter(after).id)
        with self._read() as connection:
            rows = connection.execute(query.where(mine(connection, adapters.c.owner))).all()
        return [_row(row) for row in rows[:limit]], len(rows) > limit

    def delete_adapter(self, adapter_id: str) -> AdapterRow:
        """The deleted row, so that the caller can remove what lies under its `prefix`.

        Raises NotFound, and AdapterInUse while a queued or running job is to measure it.
        """
        with self._write() as connection:
            # The lock comes first: a job that is being queued with it holds it in share.
            found = connection.execute(
                _adapters()
                .where(adapters.c.id == adapter_id, mine(connection, adapters.c.owner))
                .with_for_update()
            ).one_or_none()
            if found is None:
                raise NotFound(f"no adapter {adapter_id}", id=adapter_id)
            at_work = select(jobs.c.id, jobs.c.state, jobs.c.spec).where(
                jobs.c.type.in_(MEASURING), jobs.c.state.in_(AT_WORK)
            )
            for job_id, state, spec in connection.execute(at_work):
                if adapter_id in _uploads(spec):
                    said = f"{job_id} is {state} and measures {adapter_id}; cancel it first"
                    raise AdapterInUse(said, job=job_id)
            connection.execute(delete(adapters).where(adapters.c.id == adapter_id))
            return _row(found)

    def uploaded_bytes(self) -> int:
        """Of all adapters that the store's owner has."""
        query = select(func.coalesce(func.sum(adapters.c.bytes), 0))
        with self._read() as connection:
            owner = access_of(connection).owner
            return int(connection.execute(query.where(adapters.c.owner == owner)).scalar_one())

    def adapter_prefix_is_known(self, prefix: str) -> bool:
        """Whether a row points to these files."""
        query = select(adapters.c.id).where(adapters.c.prefix == prefix)
        with self._read() as connection:
            return connection.execute(query).first() is not None


def require_uploads(connection: Connection, spec: Spec) -> None:
    """Holds the uploaded adapters that a new job names until it is stored.

    Raises AdapterUnreadable for one that was deleted since the job was admitted.
    """
    named = spec.every_adapter if isinstance(spec, CandidatesSpec) else {}
    for param, wanted in named.items():
        if isinstance(wanted, UploadedAdapter):
            query = select(adapters.c.id).where(
                adapters.c.id == wanted.id, mine(connection, adapters.c.owner)
            )
            if connection.execute(query.with_for_update(read=True)).one_or_none() is None:
                raise AdapterUnreadable(f"no adapter {wanted.id}", param=f"{param}.id")


def _uploads(spec: Mapping[str, Any]) -> set[str]:
    """Ids of the uploaded adapters that a stored spec names, a gate's baselines among them."""
    baselines = spec.get("policy", {}).get("baselines", {})
    return {one["id"] for one in [*spec["adapters"], *baselines.values()] if "id" in one}


def _adapters() -> Select[Any]:
    return select(adapters)


def _same(owner: str, digest: str, base_layout: str) -> Select[Any]:
    return _adapters().where(
        adapters.c.owner == owner,
        adapters.c.digest == digest,
        adapters.c.base_layout == base_layout,
    )


def _row(row: Row[Any]) -> AdapterRow:
    return AdapterRow(**row._asdict())
