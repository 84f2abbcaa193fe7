"""Alembic, run from code: `migrate` brings a database to the newest schema."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

# Alembic keeps its context in module globals.
_one_at_a_time = threading.Lock()


def config() -> Config:
    """Alembic's configuration, without an ini file."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent))
    found.set_main_option("path_separator", "os")
    return found


def is_migrated(connection: Connection) -> bool:
    """Whether the database stands at the newest revision."""
    newest = ScriptDirectory.from_config(config()).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(newest)


def migrate(database: Engine | str, revision: str = "head") -> None:
    """Upgrade in one transaction; a second process that does the same waits, then finds it done."""
    wanted = config()
    wanted.attributes["database"] = database
    with _one_at_a_time:
        command.upgrade(wanted, revision)
