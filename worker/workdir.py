"""Folders of attempts: `work/<job>/attempt-<n>`. An attempt writes in its own and no other.

What an earlier attempt left is copied, and the copy is checked: a zombie may still be writing
into the original, and a checkpoint whose MANIFEST.json does not verify does not exist. Then the
earlier folders go, so that one attempt's files are the most that a job holds. A zombie that goes
on there fails on its own, or leaves a checkpoint that is judged like any other.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from service.errors import NotFound
from service.jobs import JobState
from service.settings import Settings
from service.store import Claim, Store
from worker import scored
from worker.checkpoints import KEPT, MANIFEST, read_manifest
from worker.copying import Check, copy, unwatched

ATTEMPT = re.compile(r"attempt-(\d+)")
RESUME = re.compile(r"checkpoint-(\d+)")


def root_of(settings: Settings) -> Path:
    return settings.home.resolve() / "work"


def prepare(claim: Claim, settings: Settings, check: Check = unwatched) -> tuple[Path, int | None]:
    """A fresh folder for this attempt, and the step of the checkpoint that it can resume from.

    Raises what `check` does, between two chunks, and OSError; the earlier folders stay then, and
    the new one does not.
    """
    job = root_of(settings) / claim.job_id
    workdir = job / f"attempt-{claim.attempt}"
    shutil.rmtree(workdir, ignore_errors=True)
    earlier = [folder for n, folder in _numbered(job, ATTEMPT) if n < claim.attempt]
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, workdir, ignore_errors=True)
        (workdir / "artifacts").mkdir(parents=True)
        step = adopt(earlier, workdir, check)
        scored.adopt(earlier, workdir, check)
        check()  # a stale attempt must not take away what a later one is copying
        undo.pop_all()
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
    return workdir, step


def adopt(earlier: Iterable[Path], workdir: Path, check: Check = unwatched) -> int | None:
    """Copies the furthest whole resume checkpoints, each with the measured ones it counts on."""
    candidates = [
        (step, index, attempt, folder)
        for index, attempt in enumerate(earlier)
        for step, folder in _numbered(attempt / "resume", RESUME)
    ]
    adopted: list[int] = []
    for step, _, attempt, folder in sorted(candidates, reverse=True):
        wanted = step not in adopted and len(adopted) < KEPT
        if wanted and _adopt(attempt, folder, workdir, check):
            adopted.append(step)
    return adopted[0] if adopted else None


def _adopt(attempt: Path, folder: Path, workdir: Path, check: Check) -> bool:
    """False, and nothing that counts is left behind, unless every digest agrees in the copy."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    checkpoints = workdir / "artifacts" / "checkpoints"
    for name, files in manifest["measured"].items():
        kept = attempt / "artifacts" / "checkpoints" / name
        copied = checkpoints / name
        if not copied.exists() and not _copy(kept, copied, files, check):
            return False
    target = workdir / "resume" / folder.name
    return _copy(folder, target, manifest["files"], check, also=MANIFEST)


def clean(store: Store, settings: Settings) -> list[str]:
    """Removes folders of jobs that have succeeded or were deleted; returns their ids."""
    removed = []
    for folder in sorted(root_of(settings).glob("job_*")):
        try:
            needed = store.job(folder.name).state is not JobState.SUCCEEDED
        except NotFound:
            needed = False
        if not needed:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed


def _copy(
    source: Path, target: Path, files: Mapping[str, str], check: Check, *, also: str = ""
) -> bool:
    """Copies just these files; no target unless each copy has its digest."""
    partial = target.with_name(target.name + ".adopting")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    whole = True
    try:
        for name in [*files, *([also] if also else [])]:
            with (source / name).open("rb") as old, (partial / name).open("wb") as new:
                _, digest = copy(old, new, check)
            if digest != files.get(name, digest):
                whole = False
                break
    except FileNotFoundError:
        whole = False
    if whole:
        partial.rename(target)
    else:
        shutil.rmtree(partial)
    return whole


def _numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    """(number, path) of the entries whose whole name matches, in rising order."""
    if folder.is_dir():
        found = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
        yield from sorted((int(match[1]), path) for match, path in found if match)
