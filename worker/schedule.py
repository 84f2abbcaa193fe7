"""Which step sees which rows, and how a batch is split. The order of rows depends on the spec
alone: never on hardware, rank, or how often a run was resumed."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
from torch.utils.data import Sampler

from service.schemas.spec import Training


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
