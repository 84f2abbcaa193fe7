"""What the driver tells vLLM's worker of a pass, and how rows lie in arrays.

Tokens are windows end to end. A position is a scored token, counted over all windows in order;
the hidden state of the token before it predicts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.divergence import BaseRows, PositionScores, Route


@dataclass(frozen=True)
class Tokens:
    ids: NDArray[np.int32]  # every window's tokens (tokens,)
    starts: NDArray[np.int64]  # where each window begins, then the end (windows + 1,)
    scored: NDArray[np.bool_]  # never a window's first token (tokens,)

    @cached_property
    def position_of(self) -> NDArray[np.int64]:
        """The position of every token; meaningless where it is not scored (tokens,)."""
        return np.cumsum(self.scored) - 1

    @cached_property
    def n_positions(self) -> int:
        return int(self.scored.sum())

    def predicted(self, window: int, begin: int, end: int) -> NDArray[np.int64]:
        """Indices of the tokens that the window's tokens [begin, end) stand right before; some
        are not scored, and the window's end predicts nothing."""
        start, stop = int(self.starts[window]), int(self.starts[window + 1])
        return np.arange(start + begin + 1, min(start + end + 1, stop))

    def positions(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """All positions of these windows, in the windows' order."""
        spans = [np.arange(self.starts[w], self.starts[w + 1]) for w in windows]
        tokens = np.concatenate(spans)
        return self.position_of[tokens[self.scored[tokens]]]


@dataclass(frozen=True)
class Pass:
    tokens: Tokens
    rows: Mapping[str, NDArray[Any]]
    """`BaseRows` by field name: arrays of all positions, mapped from the cache; a base pass fills
    them. Not their paths: an entry may be moved or evicted while it is read."""
    fills: bool
    """The base's pass; else a candidate's."""
    route: Route
    chunk: int
    reverse: bool = False


class Rows:
    """`BaseRows` of many positions, in arrays."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def put(self, positions: NDArray[np.int64], rows: BaseRows) -> None:
        for name, array in self._arrays.items():
            array[positions] = _plain(getattr(rows, name))

    def at(self, positions: NDArray[np.int64], device: torch.device) -> BaseRows:
        rows = {}
        for field in fields(BaseRows):
            tensor = torch.from_numpy(self._arrays[field.name][positions])
            if field.name == "vectors" and tensor.dtype == torch.int16:
                tensor = tensor.view(torch.bfloat16)  # numpy knows none: its bits travel
            rows[field.name] = tensor.to(device)
        return BaseRows(**rows)


def shapes(
    n: int, width: int, vocab: int, route: Route, dtype: torch.dtype
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and numpy dtype of every array that a base pass over n positions fills."""
    vectors: Any = np.float32
    if route == "logits" and dtype != torch.float32:
        vectors = np.int16 if dtype == torch.bfloat16 else np.float16
    return {
        "vectors": ((n, width), vectors),
        "offset": ((n,), np.float64),
        "targets": ((n,), np.int64),
        "h_base": ((n,), np.float64),
        "nll_base": ((n,), np.float64),
        "top_id": ((n,), np.int64),
        "top_p": ((n,), np.float64),
        "top5": ((n, min(5, vocab)), np.int64),
    }


class Columns:
    """`PositionScores` of all positions, filled in any order; writing twice is writing once."""

    def __init__(self, n_positions: int) -> None:
        self._n = n_positions
        self._arrays: dict[str, NDArray[Any]] = {}
        self.seen = np.zeros(n_positions, bool)

    def put(self, positions: NDArray[np.int64], scores: PositionScores) -> None:
        for field in fields(scores):
            tensor = getattr(scores, field.name)
            if tensor is None:
                continue
            values = tensor.cpu().numpy()
            if field.name not in self._arrays:
                self._arrays[field.name] = np.zeros(self._n, values.dtype)
            self._arrays[field.name][positions] = values
        self.seen[positions] = True

    def at(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {name: array[positions] for name, array in self._arrays.items()}


def _plain(tensor: torch.Tensor) -> NDArray[Any]:
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.cpu().numpy()
