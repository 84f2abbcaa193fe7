"""Tokenised datasets through the cache: runs of one sweep share one, mapped from disk.

The key is every input that could change a token; what the cache gives is what `tokenise` would.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedTokenizerBase as Tokenizer

from service.schemas.spec import Training
from worker.cache import Cache, Entry
from worker.data import PackedRows, Rows, TokenisedDataset, dataset_of, split
from worker.digest import digest_bytes
from worker.once import Alive, once

TOKENISING_VERSION = 1
"""Of the rows: change it whenever the same inputs could give others."""
PARTS = ("train", "heldout")


def tokenised(
    rows: Rows,
    tokenizer: Tokenizer,
    training: Training,
    *,
    tokenizer_digest: str,
    cache: Cache,
    waiting: Callable[[], None] = lambda: None,
) -> tuple[TokenisedDataset, bool]:
    """`tokenise`, from the cache if it is there (then True), else into it. Raises the same."""

    def compute(alive: Alive) -> Entry:
        done = split(rows, tokenizer, training, alive=alive)
        alive()
        dataset_of(*done, rows, training)  # refused before it is stored
        with cache.write(key) as writer:
            for part, packed in zip(PARTS, done, strict=True):
                for name, array in packed.arrays().items():
                    writer.array(f"{part}_{name}", array.shape, array.dtype)[:] = array
            return writer.commit({})

    key = dataset_key(rows, tokenizer, training, tokenizer_digest)
    entry, cached = once(cache, key, compute, waiting=waiting)
    train, heldout = (
        PackedRows.of({name: entry.arrays[f"{part}_{name}"] for name in PackedRows.ARRAYS})
        for part in PARTS
    )
    return dataset_of(train, heldout, rows, training), cached


def dataset_key(
    rows: Rows, tokenizer: Tokenizer, training: Training, tokenizer_digest: str
) -> dict[str, Any]:
    """Everything that could change a row or the side that it falls on. Batch, seed and rank do
    not."""
    template = str(tokenizer.chat_template or "")
    return {
        "holds": "dataset",
        "rows": rows.digest,
        "format": rows.format,
        "tokenizer": tokenizer_digest,
        "chat_template": digest_bytes(template.encode()),
        # Some templates write today's date into the system prompt.
        "date": time.strftime("%Y-%m-%d") if "strftime_now" in template else None,
        "max_length": training.max_length,
        "loss_on": training.loss_on,
        "held_out": training.held_out,
        "versions": {name: version(name) for name in ("transformers", "tokenizers")},
        "tokenising_version": TOKENISING_VERSION,
    }
