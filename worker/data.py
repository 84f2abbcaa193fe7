"""Rows to train on. A label of -100 is not supervised; position 0 never is, nothing predicts it."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import datasets
import numpy as np
from numpy.typing import NDArray

from service.errors import DatasetUnreadable
from service.rows import Example, Format, detect, example, read_file
from service.schemas.spec import MAX_HELD_OUT_ROWS, Dataset, Training
from service.settings import Settings
from service.sources import find, is_hub_id, resolve_file
from worker.hub import fetching
from worker.prompts import TOKENISED_AT_ONCE, Span, Tokenizer, render, tokenise_spans

IGNORED = -100
PARAM = "dataset.path"


@dataclass(frozen=True)
class Rows:
    """A dataset as it was read, before any tokenizer."""

    examples: tuple[Example, ...]
    format: Format
    digest: str
    """Of the examples' content in their order: jsonl, parquet and hub rows alike give the same."""


@dataclass(frozen=True)
class Row:
    input_ids: list[int]
    labels: list[int]
    """input_ids where supervised, else -100; same length."""


class PackedRows(Sequence[Row]):
    """Rows in three flat arrays, 5 bytes a token where lists take 16; a row is unpacked when it
    is asked for."""

    ARRAYS = ("ids", "supervised", "ends")

    def __init__(self, rows: Iterable[Row]) -> None:
        ids, supervised, ends = array("i"), array("b"), array("q", [0])
        for row in rows:
            ids.extend(row.input_ids)
            supervised.extend(label != IGNORED for label in row.labels)
            ends.append(len(ids))
        self._ids = np.frombuffer(ids, np.int32) if ids else np.empty(0, np.int32)
        self._supervised = np.frombuffer(supervised, bool) if ids else np.empty(0, bool)
        self._ends = np.frombuffer(ends, np.int64)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "PackedRows":
        """Rows from what `arrays` gave, which may be mapped from disk."""
        made = cls.__new__(cls)
        made._ids, made._supervised, made._ends = (arrays[name] for name in cls.ARRAYS)
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Token ids of all rows, int32; whether each is supervised; where rows end, from 0."""
        return dict(zip(self.ARRAYS, (self._ids, self._supervised, self._ends), strict=True))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        span = slice(self._ends[at], self._ends[at + 1])
        ids = self._ids[span].tolist()
        labels = zip(ids, self._supervised[span].tolist(), strict=True)
        return Row(ids, [token if on else IGNORED for token, on in labels])

    def length(self, index: int) -> int:
        """Tokens of one row, prompt included."""
        return int(self._ends[index + 1] - self._ends[index])

    def part(self, indices: Iterable[int]) -> "PackedRows":
        return PackedRows(self[index] for index in indices)


@dataclass(frozen=True)
class TokenisedDataset:
    train: PackedRows
    heldout: PackedRows
    """The rows that L_ft is measured on: chosen by content, the same for every seed and rank."""
    digest: str
    format: Format
    n_dropped: int = 0
    """Rows left out: nothing supervised within max_length."""
    warnings: list[str] = field(default_factory=list)


def load_rows(dataset: Dataset, settings: Settings) -> Rows:
    """Read a file under an allowed root, or a hub id. Raises DatasetUnreadable, PathNotAllowed."""
    found = find(dataset.path, settings.data_roots, param=PARAM)
    if found is None and settings.allow_hub is not False and is_hub_id(dataset.path):
        lines = hub_rows(dataset)
    else:
        lines = read_file(resolve_file(dataset.path, settings.data_roots, param=PARAM))
    chosen: Format | None = None if dataset.format == "auto" else dataset.format
    examples: list[Example] = []
    for line, row in lines:
        chosen = chosen or detect(row)
        examples.append(example(row, chosen, line=line))
    if chosen is None or not examples:
        raise DatasetUnreadable(f"{dataset.path}: no rows", param=PARAM)
    digest = hashlib.sha256()
    for one in examples:
        digest.update(_content(one).encode())
    return Rows(tuple(examples), chosen, f"sha256:{digest.hexdigest()}")


def hub_rows(dataset: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of one split, through `datasets`.

    Raises DatasetUnreadable, SystemFault (the hub does not answer), OSError (disk full).
    """
    datasets.disable_progress_bars()
    with fetching(dataset.path, DatasetUnreadable, param=PARAM):
        split = datasets.load_dataset(
            dataset.path, dataset.name, split=dataset.split, revision=dataset.revision
        )
    yield from enumerate(split, start=1)


def tokenise(rows: Rows, tokenizer: Tokenizer, training: Training) -> TokenisedDataset:
    """Token ids, labels and the held-out split. Raises what `split` and `dataset_of` do."""
    return dataset_of(*split(rows, tokenizer, training), rows, training)


def split(
    rows: Rows,
    tokenizer: Tokenizer,
    training: Training,
    *,
    alive: Callable[[], None] = lambda: None,
) -> tuple[PackedRows, PackedRows]:
    """Rows to train on and rows held out: what follows from rows, tokenizer, `max_length`,
    `loss_on` and `held_out` alone.

    `alive` is called every TOKENISED_AT_ONCE rows. Raises DatasetUnreadable: nothing supervised
    is left within `max_length`.
    """
    keys: list[bytes] = []
    kept = PackedRows(_supervised(rows, tokenizer, training, keys, alive))
    if not kept:
        raise DatasetUnreadable(
            f"none of {len(rows.examples)} rows has a supervised token within max_length "
            f"{training.max_length}",
            param="training.max_length",
            rows=len(rows.examples),
        )
    held = heldout_keys(keys, training.held_out)
    train = kept.part(i for i, key in enumerate(keys) if key not in held)
    return train, kept.part(i for i, key in enumerate(keys) if key in held)


def dataset_of(
    train: PackedRows, heldout: PackedRows, rows: Rows, training: Training
) -> TokenisedDataset:
    """Raises DatasetUnreadable: too few rows to hold one out and fill one batch."""
    n_dropped = len(rows.examples) - len(train) - len(heldout)
    warnings = []
    if n_dropped:
        warnings.append(
            f"{n_dropped} of {len(rows.examples)} rows were dropped: no supervised token within "
            f"max_length {training.max_length}; raise it, or set loss_on to all"
        )
    if len(train) < training.batch_size:
        counted = f"{len(train)} rows to train on, {len(heldout)} held out"
        raise DatasetUnreadable(
            "; ".join([f"{counted}; one batch is {training.batch_size}", *warnings]),
            param=PARAM,
            rows=len(train),
            held_out=len(heldout),
            dropped=n_dropped,
            batch_size=training.batch_size,
        )
    return TokenisedDataset(train, heldout, rows.digest, rows.format, n_dropped, warnings)


def heldout_keys(keys: Sequence[bytes], share: float) -> set[bytes]:
    """Keys of the held-out rows: the smallest ones, which hashes of content make a fair draw.

    Copies of a row share its key, so none is trained on while another is held out. At most
    `share` of all rows, rounded, and MAX_HELD_OUT_ROWS; but at least the rarest text with all its
    copies, however many those are.
    """
    copies = Counter(keys)
    wanted = min(MAX_HELD_OUT_ROWS, max(1, round(share * len(keys))))
    held: set[bytes] = set()
    n_held = 0
    for key in sorted(copies):
        if n_held + copies[key] <= wanted:
            held.add(key)
            n_held += copies[key]
    return held or {min(copies, key=lambda key: (copies[key], key))}


def _spans(rows: Rows, number: int, tokenizer: Tokenizer, training: Training) -> list[Span]:
    one = rows.examples[number]
    try:
        spans = render(one, tokenizer, every_answer=rows.format == "messages")
    except ValueError as error:
        raise DatasetUnreadable(f"row {number + 1}: {error}", param=PARAM) from error
    has_completion = one.completion is not None
    if training.loss_on == "completion" and not has_completion:
        raise DatasetUnreadable(
            f"row {number + 1} has no completion to take the loss on", param="training.loss_on"
        )
    if training.loss_on == "all" or not has_completion:
        return [Span(span.text, supervised=True) for span in spans]
    return spans


def _supervised(
    rows: Rows,
    tokenizer: Tokenizer,
    training: Training,
    keys: list[bytes],
    alive: Callable[[], None],
) -> Iterator[Row]:
    """Rows with a supervised token within `max_length`, in order; their keys go into `keys`."""
    for start in range(0, len(rows.examples), TOKENISED_AT_ONCE):
        alive()
        numbers = range(start, min(start + TOKENISED_AT_ONCE, len(rows.examples)))
        spans = [_spans(rows, number, tokenizer, training) for number in numbers]
        for number, row in zip(numbers, _tokenised(spans, tokenizer, training), strict=True):
            if any(label != IGNORED for label in row.labels):
                keys.append(hashlib.sha256(_content(rows.examples[number]).encode()).digest())
                yield row


def _tokenised(spans: list[list[Span]], tokenizer: Tokenizer, training: Training) -> Iterator[Row]:
    for ids, supervised in tokenise_spans(spans, tokenizer):
        cut = ids[: training.max_length]
        labels = [token if on else IGNORED for token, on in zip(cut, supervised, strict=False)]
        yield Row(cut, [IGNORED, *labels[1:]])


def _content(one: Example) -> str:
    """One line per example, the same whichever file format it came from."""
    parts = [one.prompt, one.completion, one.text]
    return json.dumps(parts, ensure_ascii=False, sort_keys=True) + "\n"
