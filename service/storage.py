"""The artifact store as fsspec reaches it, and its troubles in our own terms."""

import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from service.errors import SystemFault
from service.settings import Settings

log = logging.getLogger(__name__)

_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("aiohttp.client_exceptions", "ClientError"),
)
"""What backends raise that is no OSError. None of them is needed to be installed."""


def storage_errors() -> tuple[type[Exception], ...]:
    """What a storage backend may raise: those classes that were imported by now."""
    loaded = [(sys.modules[module], name) for module, name in _FOREIGN if module in sys.modules]
    foreign = [getattr(module, name) for module, name in loaded]
    return (OSError, ImportError, ValueError, *foreign)


@contextmanager
def storage_faults(settings: Settings) -> Iterator[None]:
    """Raises SystemFault in place of whatever the backend raised."""
    try:
        yield
    except storage_errors() as error:
        raise SystemFault(f"artifact store {shown(settings.artifacts)}: {error}") from error


def folder_of(prefix: str, settings: Settings) -> tuple[Any, str]:
    """File system and path of a folder."""
    fs, root = fsspec.core.url_to_fs(f"{settings.artifacts.rstrip('/')}/{prefix}")
    return fs, str(root)


def remove_folder(prefix: str, settings: Settings) -> None:
    """What lies under `prefix`; a store that refuses is only logged."""
    try:
        fs, root = folder_of(prefix, settings)
        fs.rm(root, recursive=True)
    except FileNotFoundError:
        log.info("artifacts under %s were gone already", prefix)
    except storage_errors() as error:
        log.warning("artifacts under %s stay behind: %s", prefix, error)


def require_artifacts(settings: Settings) -> str:
    """Write a file and remove it; the URL to show. Raises SystemFault."""
    with storage_faults(settings):
        fs, root = fsspec.core.url_to_fs(settings.artifacts)
        probe = f"{root.rstrip('/')}/.check-{secrets.token_hex(4)}"
        fs.makedirs(root, exist_ok=True)
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)
    return shown(settings.artifacts)


def shown(url: str) -> str:
    """Without user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
