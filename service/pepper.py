"""The one secret under which every key's digest is made: a stolen database opens nothing."""

import contextlib
import os
import secrets
from pathlib import Path

from service.errors import SystemFault
from service.settings import Settings

MIN_CHARACTERS = 16


def pepper(settings: Settings) -> bytes:
    """`FORGETTING_KEY_PEPPER`; in the embedded set-up else a file of the home, made when missing.

    Raises SystemFault where several machines would each make their own.
    """
    if settings.key_pepper is not None:
        given = settings.key_pepper.get_secret_value()
        if len(given) < MIN_CHARACTERS:
            raise SystemFault(f"FORGETTING_KEY_PEPPER needs at least {MIN_CHARACTERS} characters")
        return given.encode()
    if settings.database_url is not None and not settings.database_url.startswith("sqlite"):
        raise SystemFault("Set FORGETTING_KEY_PEPPER: every service on this database must know it")
    path = settings.home.resolve() / "key_pepper"
    if not path.exists():
        _make(path)
    return path.read_text().encode()


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole under its final name, so that of two processes both read the one that was first.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
