"""The second level of the cache: one object per entry on any fsspec URL, for all machines.

It saves work and nothing else: what cannot be reached or does not verify is computed here.
"""

import secrets
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec

COPY_BYTES = 1 << 20
Warn = Callable[[str], None]


class Shared:
    """Entries by name. `warn` is told where the storage could not be used."""

    def __init__(self, url: str, *, warn: Warn = lambda message: None) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self.warn = warn

    def fetch(self, name: str, into: Path) -> bool:
        """Unpack the entry into `into`, an existing folder; False: there is none to be had.

        What was unpacked may be damaged: the reader verifies it.
        """
        try:
            with (
                self.fs.open(self._place(name), "rb") as file,
                tarfile.open(fileobj=file, mode="r|", bufsize=COPY_BYTES) as packed,
            ):
                packed.extractall(into, filter="data")
        except FileNotFoundError:
            return False
        except (OSError, tarfile.TarError) as error:
            self.warn(f"the shared cache could not be read ({error}); computing instead")
            return False
        return True

    def offer(self, name: str, folder: Path) -> None:
        """Upload the finished entry, visible once it is whole. One that is there is as good."""
        try:
            if self.fs.exists(self._place(name)):
                return
            self.fs.makedirs(self.root, exist_ok=True)
            partial = f"{self.root}/.partial-{secrets.token_hex(8)}"
            with (
                self.fs.open(partial, "wb") as file,
                tarfile.open(fileobj=file, mode="w|", bufsize=COPY_BYTES) as packed,
            ):
                for path in sorted(folder.iterdir()):
                    packed.add(path, path.name)
            self.fs.mv(partial, self._place(name))
        except OSError as error:
            self.warn(f"the shared cache could not be written ({error})")

    def drop(self, name: str) -> None:
        """Remove an entry that did not verify, so that a good one can take its place."""
        try:
            self.fs.rm(self._place(name))
        except OSError as error:
            self.warn(f"a damaged entry of the shared cache could not be removed ({error})")

    def _place(self, name: str) -> str:
        return f"{self.root}/{name}.tar"
