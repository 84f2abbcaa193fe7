"""Content-addressed arrays: base passes and tokenised datasets, a folder per key, whole or absent,
verified when read.

The key is every input that could change a number. Entries are written beside their place and
renamed into it, so a reader never sees a part of one and two writers cannot mix.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.settings import Settings
from worker.shared import Shared

MANIFEST = "manifest.json"
HIDDEN = "."
ABANDONED_SECONDS = 86_400.0
"""A partial entry this old has no writer any more."""


@dataclass(frozen=True)
class Entry:
    """Finished work: read-only arrays mapped from disk, and what else was noted of it."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class Cache:
    """Least recently used entries go first once `max_bytes` is exceeded; the newest one stays."""

    def __init__(self, folder: Path, *, max_bytes: int, shared: Shared | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.shared = shared

    def get(self, key: Mapping[str, Any]) -> Entry | None:
        """The entry of exactly this key, or None: absent, damaged, or evicted while it was read.

        What was read and found damaged is dropped, and nothing that took its place meanwhile.
        """
        place = self._place(key)
        try:
            read = place.stat().st_ino
        except FileNotFoundError:
            return None
        with suppress(FileNotFoundError):  # a file is gone: damaged, or just evicted
            manifest = _verified(place)
            if manifest is not None and manifest["key"] == dict(key):
                entry = _open(place, manifest)
                os.utime(place)
                return entry
        self._drop(place, read)
        return None

    def fetch(self, key: Mapping[str, Any]) -> Entry | None:
        """The entry of `key` from the shared level, kept here from now on; None where there is
        none that verifies."""
        if self.shared is None:
            return None
        name = self._place(key).name
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{HIDDEN}partial-{secrets.token_hex(8)}"
        partial.mkdir()
        try:
            if not self.shared.fetch(name, partial):
                return None
            manifest = _verified(partial)
            if manifest is None or manifest["key"] != dict(key):
                self.shared.drop(name)
                return None
            entry = _open(partial, manifest)
            self.settle(partial, key)
            return entry
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def offer(self, key: Mapping[str, Any]) -> None:
        """Bring the finished entry of `key` to the shared level."""
        if self.shared is not None and self._place(key).is_dir():
            self.shared.offer(self._place(key).name, self._place(key))

    def write(self, key: Mapping[str, Any]) -> "Writer":
        """A new entry for `key`, invisible until its `commit`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        return Writer(self, dict(key), self.folder / f"{HIDDEN}partial-{secrets.token_hex(8)}")

    def settle(self, partial: Path, key: Mapping[str, Any]) -> None:
        """Move a finished folder into its place. An entry that got there first is as good."""
        place = self._place(key)
        try:
            partial.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(partial)
        os.utime(place)
        self._evict(keep=place)

    def lock_file(self, key: Mapping[str, Any]) -> Path:
        """Where processes that would compute `key` meet; see `worker.once`."""
        return self.folder / f"{HIDDEN}lock-{self._place(key).name}"

    def _place(self, key: Mapping[str, Any]) -> Path:
        return self.folder / hashlib.sha256(_canonical(key)).hexdigest()

    def _evict(self, *, keep: Path) -> None:
        entries = [path for path in self.folder.iterdir() if not path.name.startswith(HIDDEN)]
        ages = {path: _age_key(path) for path in entries if path != keep}
        total = sum(_size(path) for path in entries)
        for path in sorted(ages, key=ages.__getitem__):
            if total <= self.max_bytes:
                return
            total -= _size(path)
            self._drop(path)

    def _drop(self, place: Path, inode: int | None = None) -> None:
        """Out of sight first: nobody may find an entry that is half deleted.

        With `inode`, only that folder: another one found in its place is put back.
        """
        gone = self.folder / f"{HIDDEN}gone-{secrets.token_hex(8)}"
        try:
            place.rename(gone)
        except FileNotFoundError:
            return
        if inode is not None and gone.stat().st_ino != inode:
            with suppress(OSError):  # a third one is there already, and is as good
                gone.rename(place)
                return
        shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self) -> None:
        """Clear away what writers that died left behind."""
        for path in self.folder.glob(f"{HIDDEN}*"):
            if time.time() - _age_key(path) > ABANDONED_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def cache_of(settings: Settings, *, warn: Callable[[str], None]) -> Cache:
    """This machine's, with what machines share behind it where `settings` name that."""
    shared = None if settings.cache_url is None else Shared(settings.cache_url, warn=warn)
    return Cache(settings.cache, max_bytes=settings.cache_max_bytes, shared=shared)


class Writer:
    """Arrays being filled. `commit` makes them an entry; leaving the `with` without it, nothing."""

    def __init__(self, cache: Cache, key: dict[str, Any], folder: Path) -> None:
        self._cache, self._key, self._folder = cache, key, folder
        self._arrays: dict[str, np.memmap[Any, Any]] = {}
        self._committed = False
        folder.mkdir()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.clear()
        if not self._committed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A writable array on disk, zero at first. Raises OSError where there is no room for it."""
        path = self._folder / f"{name}.npy"
        self._arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        # A hole in the file that the disk cannot fill would kill the process by SIGBUS later.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return self._arrays[name]

    def commit(self, facts: Mapping[str, Any]) -> Entry:
        """Seal the entry and open it as a reader would find it."""
        for array in self._arrays.values():
            array.flush()
        files = {f"{name}.npy": _sha256(self._folder / f"{name}.npy") for name in self._arrays}
        manifest = {"key": self._key, "facts": dict(facts), "files": files}
        body = _canonical(manifest)
        # The manifest vouches for the arrays, its first line for itself.
        (self._folder / MANIFEST).write_bytes(_seal(body) + body)
        # Opened before the move: what is mapped stays readable if another process evicts it.
        entry = _open(self._folder, manifest)
        self._cache.settle(self._folder, self._key)
        self._committed = True
        return entry


def _open(place: Path, manifest: Mapping[str, Any]) -> Entry:
    arrays = {Path(name).stem: np.load(place / name, mmap_mode="r") for name in manifest["files"]}
    return Entry(arrays, manifest["facts"])


def _verified(place: Path) -> dict[str, Any] | None:
    """The manifest, if every byte of the entry is what was written."""
    try:
        content = (place / MANIFEST).read_bytes()
        seal, body = content[:65], content[65:]
        if seal != _seal(body):
            return None
        manifest: dict[str, Any] = json.loads(body)
        good = all(_sha256(place / name) == wanted for name, wanted in manifest["files"].items())
    except FileNotFoundError:
        return None
    return manifest if good else None


def _seal(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n"


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.glob("*") if path.exists())


def _age_key(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except FileNotFoundError:
        return 0.0
