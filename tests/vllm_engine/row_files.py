"""Empty arrays on disk for a base pass."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.divergence import Route
from worker.vllm_score.passes import Tokens, shapes


def row_files(folder: Path, tokens: Tokens, width: int, route: Route) -> dict[str, NDArray[Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    planned = shapes(tokens.n_positions, width, 1024, route, torch.float32)
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in planned.items()
    }
