"""Points for judging: made on the paper's grid from a curve of the caller's choice."""

from collections.abc import Callable, Sequence

import numpy as np

from service.laws import Point
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA, PAPER_RANKS

STEPS = (50, 63, 80, 102, 129, 163, 206, 260)
Curve = Callable[[int, int, int], float]
"""Forgetting by rank, step and seed."""


def study(
    curve: Curve,
    *,
    n_seeds: int = 2,
    seed: int = 0,
    noise_sd: float = 0.004,
    run_sd: float = 0.004,
    ft_noise_sd: float = 0.002,
    ranks: Sequence[int] = PAPER_RANKS,
    steps: Sequence[int] = STEPS,
) -> list[Point]:
    """One run per rank and seed: an offset per run and Gaussian noise per point; L_ft is Table
    1's for OpenOrca."""
    rng = np.random.default_rng(seed)
    points = []
    for rank in ranks:
        params = rank * LLAMA_2_7B_PARAMS_PER_RANK
        for number in range(n_seeds):
            offset = rng.normal() * run_sd
            for step in steps:
                value = curve(rank, step, number) + offset + rng.normal() * noise_sd
                ft_loss = OPENORCA.ft_loss(params, step) + rng.normal() * ft_noise_sd
                points.append(
                    Point(
                        run=f"rank-{rank}-seed-{number}",
                        rank=rank,
                        trainable_params=params,
                        step=step,
                        ft_loss=ft_loss,
                        ce_soft=value,
                    )
                )
    return points


def paper(rank: int, step: int, _seed: int) -> float:
    """The joint law of Table 1, OpenOrca."""
    return OPENORCA.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, step)


def flattening(rank: int, step: int, _seed: int) -> float:
    """A saturating exponential of the steps."""
    return float(0.5 + 0.02 * np.log(rank) + 0.4 * (1.0 - np.exp(-step / 80.0)))


def two_slopes(rank: int, step: int, seed: int) -> float:
    """Two recipes: the second forgets 0.6 times as much beyond 0.7 nats."""
    return 0.7 + (1.0, 0.6)[(seed + rank.bit_length()) % 2] * (paper(rank, step, seed) - 0.7)


def nothing(_rank: int, _step: int, _seed: int) -> float:
    """Neither rank nor step matters."""
    return 0.8
