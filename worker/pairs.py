"""Every two candidates of one job against each other, on the same documents, windows and rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service.schemas.result import Estimate, Pair, WindowTally
from worker.estimate import estimates
from worker.heldout import RowLosses
from worker.measure import Measurement
from worker.windows import Windows

METRICS = ("kl", "same_top")
PAIRS_AT_ONCE = 200
"""Bounds the memory that resamples take; the draws are the same in every block."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """What pairing needs of one candidate: sums, not positions, so that 64 fit in memory."""

    documents: Float  # sums of METRICS (documents, metrics)
    positions: Float  # how many each document has (documents,)
    windows: Float  # sums of KL (windows,)
    losses: RowLosses | None

    @classmethod
    def of(cls, measured: Measurement, windows: Windows) -> "Side":
        scores = measured.positions
        counts = np.bincount(scores.document).astype(np.float64)
        used = counts > 0
        return cls(
            scores.sums(METRICS, len(counts))[used],
            counts[used],
            np.bincount(windows.position_window, scores.columns["kl"], len(windows)),
            measured.losses,
        )


def pairs(sides: Sequence[Side], *, n_bootstrap: int = 10_000, seed: int = 17) -> list[Pair]:
    """Differences a - b with 95 % intervals, every one from the same resamples of documents.

    A difference of means over the same tokens is the mean of the differences, so it is
    bootstrapped as any mean is (worker.bootstrap); held-out loss likewise, over rows.
    """
    named = list(combinations(range(len(sides)), 2))
    found: list[Pair] = []
    for start in range(0, len(named), PAIRS_AT_ONCE):
        block = named[start : start + PAIRS_AT_ONCE]
        changes = [sides[a].documents - sides[b].documents for a, b in block]
        means = estimates(
            np.concatenate(changes, axis=1),
            sides[0].positions,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        losses = _losses(sides, block, n_bootstrap=n_bootstrap, seed=seed)
        found += [
            Pair(
                a=a,
                b=b,
                kl=means[2 * i],
                same_top=means[2 * i + 1],
                heldout=losses[i],
                windows=_tally(sides[a].windows, sides[b].windows),
            )
            for i, (a, b) in enumerate(block)
        ]
    return found


def _losses(
    sides: Sequence[Side], block: Sequence[tuple[int, int]], *, n_bootstrap: int, seed: int
) -> Sequence[Estimate | None]:
    rows = [side.losses for side in sides if side.losses is not None]
    if len(rows) < len(sides):
        return [None] * len(block)
    changes = np.column_stack([rows[a].nll - rows[b].nll for a, b in block])
    tokens = rows[0].tokens.astype(np.float64)
    return estimates(changes, tokens, scope="rows", n_bootstrap=n_bootstrap, seed=seed)


def _tally(a: Float, b: Float) -> WindowTally:
    return WindowTally(
        a_less=int((a < b).sum()), b_less=int((b < a).sum()), equal=int((a == b).sum())
    )
