"""Adapters that clients send: received on disk, checked against their base, stored, recorded.

A row is what makes an adapter exist. Every upload has a local folder that ends with it, and a
place of its own in the artifact store, noted in that folder before the first byte goes there: so
what a killed process left behind is known, and swept.
"""

import logging
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.errors import ModelUnavailable, SystemFault
from service.lora import (
    CONFIG,
    WEIGHTS,
    adapter_digest,
    check_lora,
    check_values,
    trainable_params,
)
from service.parts import Part
from service.settings import Settings
from service.sources import model_files, resolve_model
from service.storage import folder_of, remove_folder, storage_faults
from service.store import Store
from service.store.rows import AdapterRow
from service.weights import ModelFiles

log = logging.getLogger(__name__)

MAX_CONFIG_BYTES = 1_000_000
STALE_SECONDS = 6 * 3600.0
"""No upload that lives leaves its folder alone for so long."""
PLACE = "place"


@dataclass(frozen=True)
class Intended:
    """The base that an adapter is for, as its sender names it."""

    base_model: str
    revision: str | None
    files: ModelFiles


def limits(settings: Settings) -> dict[str, int]:
    """The two files, and how many bytes each may have."""
    return {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: settings.max_adapter_bytes}


def intended(base_model: str, revision: str | None, settings: Settings) -> Intended:
    """Raises ModelUnavailable, PathNotAllowed."""
    files = model_files(resolve_model(base_model, revision, settings))
    if not files.vocabulary:
        said = "config.json has no vocab_size: not a language model"
        raise ModelUnavailable(said, param="base_model")
    return Intended(base_model, revision, files)


@contextmanager
def receiving(settings: Settings) -> Iterator[Path]:
    """An empty folder for one upload; gone afterwards, with everything in it."""
    folder = _root(settings) / secrets.token_hex(8)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(
    store: Store, settings: Settings, folder: Path, parts: Mapping[str, Part], base: Intended
) -> tuple[AdapterRow, bool]:
    """Check what lies in `folder`, store and record it. False: it was there already.

    Raises AdapterUnreadable, whose `param` is the part, and SystemFault.
    """
    digest = adapter_digest({name: part.sha256 for name, part in parts.items()})
    lora, tensors = check_lora(folder, base.files, param=CONFIG, weights_param=WEIGHTS)
    known = store.adapter_of(digest, base.files.layout)
    if known is not None:
        return known, False
    check_values(folder, tensors, param=WEIGHTS)
    prefix = f"adapters/{digest.removeprefix('sha256:')}/{secrets.token_hex(8)}"
    (folder / PLACE).write_text(prefix)
    with ExitStack() as undo:
        undo.callback(remove_folder, prefix, settings)
        _put(folder, prefix, parts, settings)
        row = store.add_adapter(
            digest=digest,
            base_model=base.base_model,
            revision=base.revision,
            base_layout=base.files.layout,
            rank=lora.rank,
            trainable_params=trainable_params(lora, tensors),
            n_bytes=sum(part.bytes for part in parts.values()),
            prefix=prefix,
        )
        if row.prefix == prefix:
            undo.pop_all()
        return row, row.prefix == prefix


def remove(store: Store, settings: Settings, adapter_id: str) -> None:
    """The row first, then the files. Raises NotFound, AdapterInUse."""
    remove_folder(store.delete_adapter(adapter_id).prefix, settings)


def sweep_uploads(store: Store, settings: Settings) -> None:
    """Removes what uploads of killed processes left, here and in the artifact store."""
    root = _root(settings)
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - touched < STALE_SECONDS:
                continue
            place = folder / PLACE
            prefix = place.read_text() if place.is_file() else ""
        except OSError:
            continue  # its upload ended this moment
        if prefix and not store.adapter_prefix_is_known(prefix):
            remove_folder(prefix, settings)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed the abandoned upload %s", folder.name)


def _put(folder: Path, prefix: str, parts: Mapping[str, Part], settings: Settings) -> None:
    with storage_faults(settings):
        fs, root = folder_of(prefix, settings)
        fs.makedirs(root, exist_ok=True)
        for name, part in parts.items():
            fs.put_file(str(folder / name), f"{root}/{name}")
            if fs.size(f"{root}/{name}") != part.bytes:
                raise SystemFault(f"{name} arrived damaged at the artifact store")


def _root(settings: Settings) -> Path:
    return settings.home.resolve() / "uploads"
