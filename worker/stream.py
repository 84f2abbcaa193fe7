"""Rows of logits whose vocabulary comes block by block, and what is kept of them meanwhile."""

import torch
from torch import Tensor

from worker.reduction import exponentials_, largest_

VOCAB_BLOCK = {"cpu": 2048, "cuda": 16_384}
"""Tokens of the vocabulary whose logits exist at a time: on a CPU a block of them stays in the
caches between the product that makes it and the reduction that ends it."""


class Stream:
    """Largest logit and sum of exponentials of rows whose vocabulary comes block by block."""

    def __init__(self, hidden: Tensor, *, largest: int) -> None:
        rows, device = len(hidden), hidden.device
        self.values = torch.full((rows, largest), -torch.inf, device=device)  # descending
        self.ids = torch.zeros((rows, largest), dtype=torch.int64, device=device)
        self.total = torch.zeros(rows, dtype=torch.float64, device=device)
        self.best = torch.full((rows,), -torch.inf, device=device)

    def look(self, block: Tensor, tokens: slice) -> None:
        """Keep the block's largest logits."""
        largest_(block, tokens.start, self.values, self.ids)

    def add_(self, block: Tensor, best: Tensor) -> Tensor:
        """The block becomes exp(block - best). Returns what earlier ones must be scaled by."""
        scale = (self.best - best).exp_()
        self.total.mul_(scale).add_(exponentials_(block, best))
        self.best = best
        return scale

    def lse(self) -> Tensor:
        return self.best.double() + self.total.log()


def vocabulary_blocks(weight: Tensor) -> list[slice]:
    """Of a head's weight (vocab, width)."""
    return spans(len(weight), VOCAB_BLOCK[weight.device.type])


def spans(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def collect(block: Tensor, tokens: slice, ids: Tensor, into: Tensor) -> None:
    """into[i, j] = logit of token ids[i, j], where the block holds it."""
    here, place = _within(block, tokens, ids)
    into.copy_(torch.where(here, block.gather(1, place), into))


def put(block: Tensor, tokens: slice, ids: Tensor, values: Tensor) -> None:
    """The reverse of `collect`."""
    here, place = _within(block, tokens, ids)
    row, column = here.nonzero(as_tuple=True)
    block[row, place[row, column]] = values[row, column]


def _within(block: Tensor, tokens: slice, ids: Tensor) -> tuple[Tensor, Tensor]:
    place = ids - tokens.start
    here = (place >= 0) & (place < block.shape[1])
    return here, place.clamp_(0, block.shape[1] - 1)
