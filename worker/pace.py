"""How much a pass computes at once, and what happens where that is more than the GPU holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from worker.stream import VOCAB_BLOCK

MIN_BATCH_TOKENS, MIN_CHUNK = 1024, 64
Made = TypeVar("Made")


@dataclass(frozen=True)
class Pace:
    """How much is computed at once. Fixed per device and vocabulary, and part of the cache key:
    the same sums in the same order are what makes an untouched model score exactly 0."""

    batch_tokens: int
    chunk: int


def pace_for(device: torch.device, vocab: int) -> Pace:
    """On a CPU a chunk is as many rows as a matrix product needs to run at its full speed: fewer,
    and the head's weights are read too often. On a GPU a block of logits is up to 512 MiB."""
    if device.type == "cpu":
        return Pace(batch_tokens=2048, chunk=2**20 // min(vocab, VOCAB_BLOCK["cpu"]))
    return Pace(batch_tokens=32_768, chunk=2**27 // min(vocab, VOCAB_BLOCK["cuda"]))


def within_memory(
    attempt: Callable[[Pace], Made], pace: Pace, *, warn: Callable[[str], None]
) -> Made:
    """`attempt(pace)`, again from its start at half the pace each time a GPU's memory runs out.

    `warn` is told each time. Raises torch.OutOfMemoryError at the floor.
    """
    while True:
        slower = Pace(
            min(pace.batch_tokens, max(MIN_BATCH_TOKENS, pace.batch_tokens // 2)),
            min(pace.chunk, max(MIN_CHUNK, pace.chunk // 2)),
        )
        try:
            return attempt(pace)
        except torch.OutOfMemoryError:
            if slower == pace:
                raise
        # Outside the handler, which keeps the failed pass's tensors alive.
        torch.cuda.empty_cache()
        warn(
            f"out of GPU memory at {pace.batch_tokens} tokens a batch and {pace.chunk} rows of "
            f"logits; now {slower.batch_tokens} and {slower.chunk}"
        )
        pace = slower
