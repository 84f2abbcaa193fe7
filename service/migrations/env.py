"""Run by Alembic. The database stands in the configuration's attributes, else in the settings."""

from typing import Literal

from alembic import context
from sqlalchemy import Engine

from service.columns import FiniteDouble, FiniteJSON
from service.settings import settings
from service.store.engine import open_engine, writing
from service.tables import metadata

# Any number; the same for every process that migrates this schema.
LOCK = 0x666F7267


def run() -> None:
    database: Engine | str = context.config.attributes.get("database", settings().database)
    if isinstance(database, str):
        engine = open_engine(database)
        try:
            upgrade(engine)
        finally:
            engine.dispose()
    else:
        upgrade(database)


def upgrade(engine: Engine) -> None:
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transactional_ddl=True,
            render_item=_plain,
        )
        context.run_migrations()


def _plain(kind: str, item: object, _: object) -> str | Literal[False]:
    """Revisions name plain types: ours may change later, what was migrated may not."""
    if kind == "type" and isinstance(item, FiniteJSON | FiniteDouble):
        return f"sa.{item.impl_instance!r}".split("(")[0] + "()"
    return False


run()
