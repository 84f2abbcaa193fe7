"""`python -m service.migrations "what changes"` writes a revision from `tables.py`, to be read."""

import sys
import tempfile
from pathlib import Path

from alembic import command

from service.migrations import config, migrate


def main(message: str) -> None:
    """Compare `tables.py` with a fresh database at the newest revision."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'newest.sqlite3'}"
        migrate(url)
        wanted = config()
        wanted.attributes["database"] = url
        command.revision(wanted, message, autogenerate=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
