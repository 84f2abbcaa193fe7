"""What a gate has scored so far: one file per batch, whole or absent, never changed afterwards.

Replaying them gives the same bets and the same sums to the bit, so they are the gate's whole state:
a gate that was released or crashed looks at no window twice.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.copying import Check, copy

FOLDER = "scored"
QUESTION = "question.json"
WINDOWS, COST = "windows", "cost"


@dataclass(frozen=True)
class Batch:
    windows: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    """Arrays over these windows' positions."""
    base_tokens: int
    tuned_tokens: int
    seconds: float


class Scored:
    """Batches of one question, in order; what lies in the folder of another question goes."""

    def __init__(self, folder: Path, questions: Sequence[str], *, batch_windows: int) -> None:
        """`questions`: digests of all that the numbers hang on, for each way to get them. One that
        was begun goes on, its batches as large as they were; else the first one begins."""
        self._folder = folder
        self.batches: list[Batch] = []
        asked = _read_question(folder / QUESTION)
        if asked is None or asked["question"] not in questions:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            asked = {"question": questions[0], "batch_windows": batch_windows}
            _write(folder / QUESTION, json.dumps(asked).encode())
        self.chosen = list(questions).index(asked["question"])
        self.batch_windows = int(asked["batch_windows"])
        while (batch := _read(self._place(len(self.batches)))) is not None:
            self.batches.append(batch)
        self.n_resumed = len(self.batches)
        """Batches that earlier attempts scored."""

    def add(self, batch: Batch) -> Batch:
        """Keeps it, and returns it. Raises OSError where the disk is full."""
        cost = np.array([batch.base_tokens, batch.tuned_tokens, batch.seconds])
        buffer = io.BytesIO()
        np.savez(buffer, **{WINDOWS: batch.windows, COST: cost, **batch.columns})
        _write(self._place(len(self.batches)), buffer.getvalue())
        self.batches.append(batch)
        return batch

    @property
    def windows(self) -> NDArray[np.int64]:
        """In the order that they were scored in."""
        return np.concatenate([np.empty(0, np.int64), *(batch.windows for batch in self.batches)])

    def columns(self) -> dict[str, NDArray[Any]]:
        """Over all positions scored, window after window."""
        names = self.batches[0].columns if self.batches else {}
        return {name: np.concatenate([b.columns[name] for b in self.batches]) for name in names}

    def mean(self, name: str) -> float | None:
        """Of a column over all positions scored; null where none was."""
        if not self.batches:
            return None
        return float(self.columns()[name].mean(dtype=np.float64))

    def _place(self, index: int) -> Path:
        return self._folder / f"batch-{index:05d}.npz"


def begun(folder: Path) -> str | None:
    """Digest of the question that lies in the folder; None where none does."""
    asked = _read_question(folder / QUESTION)
    return None if asked is None else str(asked["question"])


def adopt(earlier: Iterable[Path], workdir: Path, check: Check) -> int:
    """Copies the longest of what earlier attempts scored; how many batches. A file that is torn or
    of another question is found out when it is read."""
    found = [folder / FOLDER for folder in earlier if (folder / FOLDER / QUESTION).is_file()]
    if not found:
        return 0
    longest = max(found, key=lambda folder: len(list(folder.glob("batch-*.npz"))))
    target = workdir / FOLDER
    target.mkdir()
    names = [QUESTION, *sorted(path.name for path in longest.glob("batch-*.npz"))]
    for name in names:
        with (longest / name).open("rb") as old, (target / name).open("wb") as new:
            copy(old, new, check)
    return len(names) - 1


def _read_question(path: Path) -> dict[str, Any] | None:
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(body, dict) and {"question", "batch_windows"} <= body.keys()
    return body if whole else None


def _read(path: Path) -> Batch | None:
    """None: absent, or damaged, by the checksums that a zip file has."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
        windows, (base, tuned, seconds) = columns.pop(WINDOWS), columns.pop(COST)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Batch(windows, columns, int(base), int(tuned), float(seconds))


def _write(path: Path, content: bytes) -> None:
    """The file is whole or absent, also after a power cut."""
    partial = path.with_name(f"{path.name}.tmp")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
