"""Rows of a dataset: how a file becomes rows, and a row an example. Line numbers begin at 1."""

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from service import turns
from service.errors import DatasetUnreadable
from service.turns import Example, Format, Message

__all__ = [
    "FORMATS",
    "Example",
    "Format",
    "Message",
    "count_rows",
    "detect",
    "example",
    "read_file",
]

FORMATS: dict[Format, tuple[frozenset[str], ...]] = {
    "preference": (
        frozenset({"input", "preferred_output"}),
        frozenset({"prompt", "chosen"}),
        frozenset({"chosen", "rejected"}),
    ),
    "messages": (frozenset({"messages"}),),
    "alpaca": (frozenset({"instruction", "output"}),),
    "prompt_completion": (
        frozenset({"prompt", "completion"}),
        frozenset({"prompt", "response"}),
        frozenset({"question", "response"}),
        frozenset({"question", "answer"}),
    ),
    "text": (frozenset({"text"}),),
}
"""Sets of columns that show a format; the first match counts."""

SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".parquet", ".txt"})
FIRST_ROWS = 1000
"""How many rows of a parquet file are looked at when only its beginning is wanted."""


def detect(row: dict[str, Any]) -> Format:
    """The format whose columns the row has. Raises DatasetUnreadable naming the columns."""
    for name, alternatives in FORMATS.items():
        if any(columns <= row.keys() for columns in alternatives):
            return name
    columns = ", ".join(sorted(str(key)[:64] for key in row)[:20]) or "none"
    raise DatasetUnreadable(
        f"format not detected from the columns: {columns}; "
        "expected messages, prompt and completion, instruction and output, "
        "prompt with chosen, or text",
        param="dataset.format",
    )


def example(row: dict[str, Any], format: Format, *, line: int) -> Example:  # noqa: A002
    """Raises DatasetUnreadable with the line if the row is not of the format, or is empty."""
    try:
        return turns.PARTS[format](row)
    except turns.BadRow as error:
        raise DatasetUnreadable(
            f"line {line} as {format}: {error}", param="dataset.path", line=line, format=format
        ) from error


def read_file(path: Path, *, max_bytes: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of a jsonl, csv, parquet or txt file; blank lines are skipped.

    With `max_bytes` only the lines that end within so many bytes (parquet: the first rows).
    Raises DatasetUnreadable with the line at the first malformed one.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(sorted(SUFFIXES))
        raise DatasetUnreadable(
            f"{path.name}: a dataset file ends in {known}", param="dataset.path"
        )
    if suffix == ".parquet":
        yield from _parquet(path, first=FIRST_ROWS if max_bytes is not None else None)
        return
    lines = _Lines(path, max_bytes)
    if suffix == ".csv":
        yield from _csv(lines)
    elif suffix == ".txt":
        yield from ((line, {"text": text}) for line, text in lines if text.strip())
    else:
        yield from ((line, _json(line, text)) for line, text in lines if text.strip())


def count_rows(path: Path) -> int | None:
    """Of a parquet file, from its footer; None for the others, which must be read."""
    if path.suffix.lower() != ".parquet":
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


class _Lines:
    """Numbered lines of a file, up to those that end within `max_bytes`."""

    def __init__(self, path: Path, max_bytes: int | None) -> None:
        self._path, self._left = path, max_bytes
        self.cut = False
        """Whether lines were left out."""
        self.number = 0
        """Of the line that was read last."""

    def __iter__(self) -> Iterator[tuple[int, str]]:
        with self._path.open("rb") as file:
            while raw := file.readline(-1 if self._left is None else self._left + 1):
                if self._left is not None:
                    self._left -= len(raw)
                    if self._left < 0:
                        self.cut = True
                        return
                self.number += 1
                try:
                    text = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _malformed(self.number, "not UTF-8") from error
                yield self.number, text


def _json(line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(line, f"not JSON ({error.msg} at character {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise _malformed(line, f"not JSON ({type(error).__name__})") from error
    if not isinstance(row, dict):
        raise _malformed(line, "not a JSON object; write one object per line")
    return row


def _csv(lines: _Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader((text for _, text in lines), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                n = len(reader.fieldnames or [])
                raise _malformed(reader.line_num, f"not {n} cells, which the first line has")
            yield reader.line_num, dict(row)
    except csv.Error as error:
        if lines.cut:  # inside a quoted cell
            return
        raise _malformed(lines.number, f"not CSV ({error})") from error


def _parquet(path: Path, *, first: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=min(first or 1024, 1024))
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(islice(rows, first), start=1)
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


def _not_parquet(path: Path, error: Exception) -> DatasetUnreadable:
    return DatasetUnreadable(f"{path.name} is not parquet: {error}", param="dataset.path")


def _malformed(line: int, why: str) -> DatasetUnreadable:
    return DatasetUnreadable(f"line {line}: {why}", param="dataset.path", line=line)
