"""Rows of logits whose vocabulary comes block by block, and what is kept of them meanwhile."""

import torch
from torch import Tensor

from worker.reduction import Folded

VOCAB_BLOCK = {"cpu": 2048, "cuda": 16_384}
"""Tokens of the vocabulary whose logits exist at a time: on a CPU a block of them stays in the
caches between the product that makes it and the reduction that ends it."""


def nothing_yet(wanted: Tensor, *, apart: int = 0) -> Folded:
    """Before the first block. `wanted`: tokens whose logits are asked for, int64 (rows, n)."""
    rows, device = len(wanted), wanted.device
    return Folded(
        wanted=wanted.contiguous(),
        found=torch.full(wanted.shape, -torch.inf, device=device),
        best=torch.full((rows,), -torch.inf, device=device),
        total=torch.zeros(rows, dtype=torch.float64, device=device),
        outside=torch.full((rows,), -torch.inf, device=device),
        outside_id=torch.zeros(rows, dtype=torch.int64, device=device),
        apart=apart,
    )


def log_sum_exp(known: Folded) -> Tensor:
    """float64 (rows,)."""
    return known.best.double() + known.total.log()


def vocabulary_blocks(weight: Tensor) -> list[slice]:
    """Of a head's weight (vocab, width)."""
    return spans(len(weight), VOCAB_BLOCK[weight.device.type])


def spans(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
