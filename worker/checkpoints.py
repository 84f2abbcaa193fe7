"""Resume checkpoints: a folder without a valid MANIFEST.json does not exist.

The manifest is written last and atomically. It holds the sha256 of every file, and of every
measured adapter kept so far, since a resumed run has to hand those over too.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.digest import digest_bytes, digest_now
from worker.sync import sync_folder

MANIFEST = "MANIFEST.json"
KEPT = 2
"""More than one, because a checkpoint may be torn, or of another spec or code."""


@dataclass(frozen=True)
class Resume:
    """A whole checkpoint that fits this run."""

    step: int
    folder: Path
    state: dict[str, Any]
    """What the run had noted for itself when it saved."""
    measured: dict[str, dict[str, str]]
    """`digests_of` each measured adapter that it counts on, by folder name."""


def seal(
    folder: Path,
    *,
    step: int,
    key: str,
    state: dict[str, Any],
    measured: Mapping[str, Mapping[str, str]],
) -> None:
    """Make the files in `folder` a checkpoint: digests of all of them, synced, manifest last.

    `key` says which run this is; a checkpoint is only taken up under the same key. `measured`:
    `digests_of` each measured adapter, by folder name.
    """
    sync_folder(folder)
    body = {
        "step": step,
        "key": key,
        "state": state,
        "files": digests_of(folder),
        "measured": {name: dict(digests) for name, digests in measured.items()},
    }
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps({"sha256": _digest_body(body), "body": body}, indent=1))
    sync_folder(folder)
    os.replace(partial, folder / MANIFEST)
    sync_folder(folder)


def digests_of(folder: Path) -> dict[str, str]:
    """sha256 of each file, by name; a manifest aside."""
    return {file.name: digest_now(file) for file in _files(folder)}


def newest(resume: Path, checkpoints: Path, *, key: str) -> Resume | None:
    """The last checkpoint under `resume` that is whole and of this run; null starts over.

    Whole: its own files and the measured adapters it counts on, under `checkpoints`, are all
    there with the digests of the manifest.
    """
    for folder in _by_step(resume):
        manifest = read_manifest(folder)
        if manifest is None or manifest["key"] != key:
            continue
        if _holds(folder, manifest["files"]) and all(
            _holds(checkpoints / name, files) for name, files in manifest["measured"].items()
        ):
            return Resume(manifest["step"], folder, manifest["state"], manifest["measured"])
    return None


def prune(resume: Path, *, keep: int = KEPT) -> None:
    """Delete all but the last `keep` sealed checkpoints, and everything unsealed."""
    sealed = [folder for folder in _by_step(resume) if (folder / MANIFEST).is_file()]
    for folder in set(_by_step(resume)) - set(sealed[:keep]):
        shutil.rmtree(folder)


def drop_after(resume: Path, step: int) -> None:
    """Delete what lies beyond `step`: torn or foreign checkpoints that nothing resumes from."""
    for folder in _by_step(resume):
        if _step(folder) > step:
            shutil.rmtree(folder)


def _by_step(resume: Path) -> list[Path]:
    """Checkpoint folders, newest step first."""
    if not resume.is_dir():
        return []
    folders = [path for path in resume.iterdir() if path.is_dir() and _step(path) >= 0]
    return sorted(folders, key=_step, reverse=True)


def _step(folder: Path) -> int:
    name, _, step = folder.name.partition("-")
    return int(step) if name == "checkpoint" and step.isdecimal() else -1


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest's body if it is whole and names this folder's step."""
    try:
        content = json.loads((folder / MANIFEST).read_text())
        body = content["body"]
        whole = content["sha256"] == _digest_body(body) and body["step"] == _step(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return body if whole else None


def _digest_body(body: dict[str, Any]) -> str:
    return digest_bytes(json.dumps(body, sort_keys=True, allow_nan=False).encode())


def _holds(folder: Path, files: dict[str, str]) -> bool:
    """Whether exactly these files lie there (a manifest aside), each with its digest."""
    if not folder.is_dir():
        return False
    found = {file.name: file for file in _files(folder)}
    return found.keys() == files.keys() and all(
        digest_now(found[name]) == digest for name, digest in files.items()
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and MANIFEST not in path.name)
