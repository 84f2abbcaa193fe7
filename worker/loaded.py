"""What the job before left in memory, for the next one of the same process: the base."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.settings import Settings
from worker.model import Base, Dtype, load_base

Stamp = tuple[tuple[str, int, int, int], ...]


class Loaded:
    """The last base, given again only while its files are those that it was loaded from."""

    def __init__(self) -> None:
        self._base: Base | None = None
        self._asked: tuple[Any, ...] = ()
        self._stamp: Stamp = ()

    def base(
        self,
        name: str,
        revision: str | None,
        *,
        dtype: Dtype,
        settings: Settings,
        dtype_param: str = "training.dtype",
        told: Callable[[str], None] = lambda message: None,
    ) -> Base:
        """As `load_base`. `told` hears where nothing had to be loaded."""
        asked = (name, revision, dtype, settings.model_roots, settings.allow_hub)
        held = self._base
        if held is not None and asked == self._asked and stamp(held.folder) == self._stamp:
            told("the base is still loaded, from the job before")
            return held
        self._base = None  # its memory goes before the next one's comes
        base = load_base(name, revision, dtype=dtype, settings=settings, dtype_param=dtype_param)
        self._base, self._asked, self._stamp = base, asked, stamp(base.folder)
        return base


def stamp(folder: Path) -> Stamp:
    """Changes whenever a file of the folder is written, replaced, added or taken away. By the time
    of the last change, because that of the last writing can be set: `rsync --inplace` does."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, facts.st_size, facts.st_ctime_ns, facts.st_ino))
    return tuple(found)
