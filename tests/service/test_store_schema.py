"""The migrated database is what `service.tables` describes, and as durable as promised."""

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, text
from sqlalchemy.exc import IntegrityError

from service.errors import SystemFault
from service.migrations import config, migrate
from service.store import Store
from service.sweep import Sweeper
from service.tables import metadata
from tests.specs import finetune
from worker.presence import Presence


def differences(store: Store, wanted: MetaData) -> list[object]:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, wanted))


def scalar(store: Store, statement: str) -> object:
    with store.engine.connect() as connection:
        return connection.execute(text(statement)).scalar_one()


@pytest.fixture
def empty(database_url: str) -> Iterator[Store]:
    """Not migrated."""
    store = Store(database_url)
    yield store
    store.dispose()


def test_the_migrated_schema_is_the_one_in_tables(empty: Store) -> None:
    empty.migrate()
    assert differences(empty, metadata) == []
    empty.migrate()


def test_a_database_without_tables_is_the_operators_to_mend(empty: Store) -> None:
    assert not empty.is_migrated()
    for ask in (empty.list_jobs, empty.reap, empty.living_workers, lambda: empty.claim("w")):
        with pytest.raises(SystemFault, match="database:"):
            ask()
    empty.migrate()
    assert empty.is_migrated()
    assert empty.claim("w") is None


def test_a_violated_constraint_is_not_a_fault_of_the_database(store: Store) -> None:
    store.add_job(finetune())
    with pytest.raises(IntegrityError), store._write() as connection:
        connection.execute(text("UPDATE jobs SET state = NULL"))


def test_sweeper_and_presence_outlive_a_database_without_tables(empty: Store) -> None:
    settings = empty.settings.model_copy(update={"sweep_seconds": 0.05})
    empty.settings = settings
    rung: list[str] = []
    sweeper = Sweeper(empty, rung.append).start()
    presence = Presence(empty, "early", every_seconds=0.05).start()
    try:
        time.sleep(0.3)
        empty.migrate()
        job = empty.add_job(finetune())[0].id
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and job not in rung:
            time.sleep(0.05)
        assert job in rung
        assert [worker.name for worker in empty.living_workers()] == ["early"]
    finally:
        presence.stop()
        sweeper.stop()


def test_the_comparison_sees_a_difference(store: Store) -> None:
    wanted = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(wanted)
    assert differences(store, wanted) == []
    wanted.tables["jobs"].append_column(Column("forgotten", Integer))
    wanted.tables["jobs"].c.phase.type = Integer()
    wanted.tables["events"].c.kind.index = True
    assert len(differences(store, wanted)) == 2


def test_every_revision_can_be_undone(empty: Store) -> None:
    store = empty
    store.migrate()
    down = config()
    down.attributes["database"] = store.engine
    command.downgrade(down, "base")
    assert differences(store, MetaData()) == []
    store.migrate()
    assert differences(store, metadata) == []


def test_there_is_one_newest_revision() -> None:
    assert len(ScriptDirectory.from_config(config()).get_heads()) == 1


def test_processes_that_start_together_migrate_once(empty: Store, database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(migrate, [database_url] * 3)
    assert differences(empty, metadata) == []
    empty.add_job(finetune())


def test_sqlite_is_durable_and_patient(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'deep' / 'forgetting.sqlite3'}")
    assert scalar(store, "PRAGMA journal_mode") == "wal"
    assert scalar(store, "PRAGMA synchronous") == 2
    assert scalar(store, "PRAGMA foreign_keys") == 1
    assert scalar(store, "PRAGMA busy_timeout") == 10_000
    store.dispose()


def test_postgresql_does_not_wait_for_ever(postgres_database: str) -> None:
    store = Store(postgres_database)
    assert scalar(store, "SHOW lock_timeout") == "5s"
    assert scalar(store, "SHOW idle_in_transaction_session_timeout") == "10s"
    store.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_databases_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must be a file|only sqlite"):
        Store(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_usual_spellings_of_postgresql_work(postgres_database: str, scheme: str) -> None:
    store = Store(scheme + postgres_database.removeprefix("postgresql"))
    assert store.ping() > 1.7e9
    store.dispose()


def test_the_store_survives_that_its_connections_are_cut(store: Store) -> None:
    if store.engine.dialect.name == "postgresql":
        with store.engine.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> :me"),
                {"me": connection.execute(text("SELECT pg_backend_pid()")).scalar_one()},
            )
    job, _ = store.add_job(finetune())
    assert store.job(job.id) == job
