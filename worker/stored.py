"""Rows and scores as numpy arrays by name, as files and results hold them, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from worker.divergence import BaseRows, PositionScores


def named(record: BaseRows | PositionScores) -> Iterator[tuple[str, NDArray[Any]]]:
    for field in fields(record):
        tensor = getattr(record, field.name)
        if tensor is not None:
            # numpy knows no bfloat16: its bits travel as int16
            bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
            # no vocabulary has 2^31 tokens: half of the room that the ids would take
            bits = bits.int() if bits.dtype == torch.int64 else bits
            yield field.name, bits.cpu().numpy()


def rows_at(
    store: Mapping[str, NDArray[Any]], positions: NDArray[np.int64], model: PreTrainedModel
) -> BaseRows:
    tensors = {f.name: torch.from_numpy(store[f.name][positions]) for f in fields(BaseRows)}
    if tensors["vectors"].dtype == torch.int16:
        tensors["vectors"] = tensors["vectors"].view(torch.bfloat16)
    for name in ("targets", "top_id", "top5"):
        tensors[name] = tensors[name].long()
    return BaseRows(**{name: tensor.to(model.device) for name, tensor in tensors.items()})
