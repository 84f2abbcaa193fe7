"""Which workers live, and whether they are busy."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from service.columns import epoch_now
from service.store.database import Database, upsert
from service.store.rows import WorkerRow
from service.tables import workers

FORGET_AFTER_SECONDS = 86_400.0


class Workers(Database):
    def beat_worker(
        self,
        worker: str,
        *,
        state: str,
        job_id: str | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Say that a worker lives. `state`: busy or idle."""
        with self._write() as connection:
            insert = upsert(connection, workers).values(
                name=worker, state=state, job_id=job_id, info=dict(info or {})
            )
            values = {name: insert.excluded[name] for name in ("state", "job_id", "info")}
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["name"], set_={**values, "beaten_at": epoch_now()}
                )
            )
            dead = workers.c.beaten_at < epoch_now() - FORGET_AFTER_SECONDS
            connection.execute(delete(workers).where(dead))

    def forget_worker(self, worker: str) -> None:
        """It stopped on purpose."""
        with self._write() as connection:
            connection.execute(delete(workers).where(workers.c.name == worker))

    def living_workers(self, within_seconds: float = 15.0) -> list[WorkerRow]:
        """Workers that beat so recently, by name."""
        query = (
            select(workers)
            .where(workers.c.beaten_at >= epoch_now() - within_seconds)
            .order_by(workers.c.name)
        )
        with self._read() as connection:
            return [WorkerRow(**row._asdict()) for row in connection.execute(query)]
