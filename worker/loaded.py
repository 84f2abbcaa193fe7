"""What the job before left in memory, for the next one of the same process: the base, and a vLLM
that runs over it. A job that failed leaves none, and ends the process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from service.settings import Settings
from worker.model import Base, Dtype, load_base

Stamp = tuple[tuple[str, int, int, int], ...]


class Running(Protocol):
    def close(self) -> None: ...


class Loaded:
    """The last base, given again only while its files are those that it was loaded from."""

    def __init__(self) -> None:
        self._base: Base | None = None
        self._engine: tuple[Any, Running] | None = None
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
        self.end_engine()
        self._base = None  # its memory goes before the next one's comes
        base = load_base(name, revision, dtype=dtype, settings=settings, dtype_param=dtype_param)
        self._base, self._asked, self._stamp = base, asked, stamp(base.folder)
        return base

    def take_engine(self, base: Base, asked: Any) -> Any:
        """The engine that was kept for this very base and the same `asked`, no longer kept; None
        where there is none. Any other is closed: two do not fit beside each other."""
        kept, self._engine = self._engine, None
        if kept is None:
            return None
        kept_for, engine = kept
        if base is self._base and kept_for == asked:
            return engine
        engine.close()
        return None

    def keep_engine(self, base: Base, asked: Any, engine: Running) -> None:
        """Until it is taken. One over a base that is not held is closed."""
        self.end_engine()
        if base is self._base:
            self._engine = (asked, engine)
        else:
            engine.close()

    def end_engine(self) -> None:
        """For a job that scores without it."""
        kept, self._engine = self._engine, None
        if kept is not None:
            kept[1].close()


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
