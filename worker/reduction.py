"""What is done to a block of logits, in place: by C on a CPU, compiled by torch on a GPU, else by
plain torch. The three agree to float32's rounding; within one pass only one of them is used."""

from collections.abc import Callable
from ctypes import CDLL
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from worker.native import native, threads


def exponentials_(block: Tensor, best: Tensor) -> Tensor:
    """(rows, width) float32 becomes exp(block - best); returns the rows' sums, float64 (rows,)."""
    library = _library(block)
    if library is None:
        return _on_device(_exponentials, block)(block, best)
    sums = torch.empty(len(block), dtype=torch.float64)
    best = best.contiguous()
    library.exponentials(*_matrix(block), best.data_ptr(), sums.data_ptr(), threads())
    return sums


def largest_(block: Tensor, start: int, values: Tensor, ids: Tensor) -> None:
    """Bring `values` and `ids` (rows, k), the k largest logits so far in descending order, up to
    date with tokens start, start + 1, … of `block` (rows, width). Of equals the first stays."""
    library = _library(block)
    if library is None:
        _largest(block, start, values, ids)
        return
    k = values.shape[1]
    library.largest(*_matrix(block), start, k, values.data_ptr(), ids.data_ptr(), threads())


@dataclass(frozen=True)
class Folded:
    """What is known of rows of logits after some blocks of the vocabulary; changed in place."""

    wanted: Tensor  # tokens whose logits are asked for, int64 (rows, n)
    found: Tensor  # their logits, float32 (rows, n); -inf until their block came
    best: Tensor  # largest logit, float32 (rows,)
    total: Tensor  # sum of exp(logit - best), float64 (rows,)
    outside: Tensor  # largest logit outside the first `apart` of `wanted`, float32 (rows,)
    outside_id: Tensor  # its token, of equals the first, int64 (rows,)
    apart: int


def fold_(block: Tensor, start: int, known: Folded, *, keep: bool = False) -> Tensor | None:
    """Tokens start, start + 1, … of `block` (rows, width) join what is known; it is used up.

    With `keep` it becomes exp(block - best), and what earlier blocks' exponentials must be scaled
    by is returned, float64 (rows,).
    """
    scale = torch.empty_like(known.total) if keep else None
    library = _library(block)
    if library is None:
        return _fold(block, start, known, scale)
    fields = (known.found, known.best, known.total, known.outside, known.outside_id)
    library.fold(
        *_matrix(block),
        start,
        known.wanted.data_ptr(),
        known.wanted.shape[1],
        known.apart,
        *(field.data_ptr() for field in fields),
        None if scale is None else scale.data_ptr(),
        threads(),
    )
    return scale


def reduction_name(device: torch.device) -> str:
    """Which of them works there; they round differently, so it is part of the cache's key."""
    if device.type == "cuda":
        return "triton"
    return "torch" if native() is None else "c"


def _library(block: Tensor) -> CDLL | None:
    return native() if block.device.type == "cpu" else None


def _exponentials(block: Tensor, best: Tensor) -> Tensor:
    return block.sub_(best[:, None]).exp_().sum(dim=1).double()


def _largest(block: Tensor, start: int, values: Tensor, ids: Tensor) -> None:
    k = values.shape[1]
    if k == 1:
        found, places = block.max(dim=1, keepdim=True)
        better = found > values
        values.copy_(torch.where(better, found, values))
        ids.copy_(torch.where(better, places + start, ids))
        return
    found, places = block.topk(min(k, block.shape[1]), dim=1)
    both = torch.cat([values, found], dim=1)
    ordered, order = both.sort(dim=1, descending=True, stable=True)
    known = torch.cat([ids, places + start], dim=1)
    values.copy_(ordered[:, :k])
    ids.copy_(known.gather(1, order[:, :k]))


def _fold(block: Tensor, start: int, known: Folded, scale: Tensor | None) -> Tensor | None:
    place = known.wanted - start
    here = (place >= 0) & (place < block.shape[1])
    place = place.clamp(0, block.shape[1] - 1)
    known.found.copy_(torch.where(here, block.gather(1, place), known.found))
    best = torch.maximum(known.best, block.amax(dim=1))
    row, column = here[:, : known.apart].nonzero(as_tuple=True)
    block[row, place[row, column]] = -torch.inf
    _largest(block, start, known.outside[:, None], known.outside_id[:, None])
    block[row, place[row, column]] = known.found[row, column]
    shrink = (known.best.double() - best.double()).exp_()
    known.total.mul_(shrink).add_(_on_device(_exponentials, block)(block, best))
    known.best.copy_(best)
    return None if scale is None else scale.copy_(shrink)


Exponentials = Callable[[Tensor, Tensor], Tensor]


def _on_device(function: Exponentials, block: Tensor) -> Exponentials:
    return _compiled(function) if block.device.type == "cuda" else function


@cache
def _compiled(function: Exponentials) -> Exponentials:
    """One Triton kernel that reads the block once, where eager torch reads it four times."""
    return torch.compile(function, dynamic=True)


def _matrix(block: Tensor) -> tuple[int, int, int, int]:
    assert block.dtype == torch.float32
    assert block.stride(1) == 1
    return block.data_ptr(), block.shape[0], block.shape[1], block.stride(0)
