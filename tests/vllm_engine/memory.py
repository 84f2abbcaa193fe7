"""Limits of memory planted in torch itself, under whatever runs on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_pre_hook,
    register_module_parameter_registration_hook,
)


class Limit:
    """Of rows that any module may be given at once; `struck` counts how often it was passed."""

    def __init__(self, rows: int) -> None:
        self.rows, self.struck = rows, 0

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for given in inputs:
            if isinstance(given, torch.Tensor) and given.ndim and len(given) > self.rows:
                self.struck += 1
                raise torch.OutOfMemoryError(f"planted: {len(given)} rows")


@contextmanager
def limited(rows: int) -> Iterator[Limit]:
    limit = Limit(rows)
    handle = register_module_forward_pre_hook(limit)
    try:
        yield limit
    finally:
        handle.remove()


class Weights:
    """No room for the weights of the first `times` models that are built."""

    def __init__(self, times: int | None) -> None:
        self.times, self.struck, self.n_parameters = times, 0, 0

    def __call__(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        self.n_parameters += 1
        if self.n_parameters >= 5 and (self.times is None or self.struck < self.times):
            self.struck, self.n_parameters = self.struck + 1, 0
            raise torch.OutOfMemoryError("planted: no room for weights")


@contextmanager
def no_room_for_weights(times: int | None = None) -> Iterator[Weights]:
    limit = Weights(times)
    handle = register_module_parameter_registration_hook(limit)
    try:
        yield limit
    finally:
        handle.remove()
