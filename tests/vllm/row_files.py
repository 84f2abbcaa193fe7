"""Empty files for a base pass."""

from pathlib import Path

import numpy as np
import torch

from worker.divergence import Route
from worker.vllm_score.passes import Tokens, shapes


def row_files(folder: Path, tokens: Tokens, width: int, route: Route) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    planned = shapes(tokens.n_positions, width, 1024, route, torch.float32)
    for name, (shape, dtype) in planned.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    return {name: str(folder / f"{name}.npy") for name in planned}
