"""Which step sees which rows, and at which steps an adapter is kept. Both depend on the spec
alone: never on hardware, rank, or how often a run was resumed."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
from torch.utils.data import Sampler

from service.schemas.spec import Training

FIRST_SHARE = 0.2
"""Before a fifth of the run nothing is measured: the paper leaves out 50 of its 260 steps."""


def log_spaced_steps(max_steps: int, n: int = 8) -> list[int]:
    """Up to `n` steps in geometric progression from a fifth of the run to its end, both included.

    260 steps give 52, 65, 82, 104, 130, 164, 207, 260. Short runs give fewer, never doubles.
    """
    first = max(1.0, FIRST_SHARE * max_steps)
    ratio = max_steps / first
    spread = [first * ratio ** (i / (n - 1)) for i in range(n)] if n > 1 else [max_steps]
    return sorted({min(max_steps, max(1, round(step))) for step in spread} | {max_steps})


def checkpoint_steps(training: Training) -> list[int]:
    """Steps at which the adapter is kept and measured; the last step always is."""
    if training.checkpoints == "log-spaced":
        return log_spaced_steps(training.max_steps)
    if training.checkpoints == "final":
        return [training.max_steps]
    return sorted({*training.checkpoints, training.max_steps})


class RowOrder(Sampler[int]):
    """Row indices in the order of training: permutation after permutation of all rows.

    Batches run across the seam of two passes, so each has exactly the effective size. Epoch e of
    a seed is the same permutation whatever the rank, the micro batch or the point of resume.
    """

    def __init__(self, n_rows: int, n_draws: int, *, seed: int) -> None:
        self.n_rows = n_rows
        self.n_draws = n_draws
        self.seed = seed

    def __len__(self) -> int:
        return self.n_draws

    def __iter__(self) -> Iterator[int]:
        return islice(self._endless(), self.n_draws)

    def _endless(self) -> Iterator[int]:
        for epoch in count():
            yield from np.random.default_rng([self.seed, epoch]).permutation(self.n_rows).tolist()


def micro_sizes(training: Training, device: str) -> list[int]:
    """Micro batches to try, largest first; all divide the batch. A GPU starts from the whole batch,
    a CPU from up to 8 rows, and each next one is at most half; a given number is taken as is."""
    if training.micro_batch_size != "auto":
        return [training.micro_batch_size]
    divisors = [d for d in range(1, training.batch_size + 1) if training.batch_size % d == 0]
    sizes = [max(d for d in divisors if d <= (8 if device == "cpu" else training.batch_size))]
    while sizes[-1] > 1:
        sizes.append(max(d for d in divisors if d <= sizes[-1] // 2))
    return sizes
