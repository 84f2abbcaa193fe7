"""Points across learning rates, made from Table 1 with a known exposure in place of the steps."""

from collections.abc import Sequence

import numpy as np

from service.laws import Point
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA

RATES = (2e-5, 5e-5, 1.25e-4)
RATE0 = 5e-5
"""Geometric mean of RATES, at which the exposure is the step."""
RANKS = (8, 32, 128)
STEPS = (50, 80, 130, 260)


def exposed(gamma: float, step: float, rate: float) -> float:
    return step * (rate / RATE0) ** gamma


def rate_grid(
    gamma: float | None,
    *,
    rates: Sequence[float] = RATES,
    ranks: Sequence[int] = RANKS,
    steps: Sequence[int] = STEPS,
    noise_sd: float = 0.0,
    seed: int = 0,
) -> list[Point]:
    """One run per rank and rate; `gamma` null: ||dW|| is the exposure, and no power of the rate.

    ||dW|| scatters by a fifth about sqrt(N lr), so that neither stands for the other.
    """
    rng = np.random.default_rng(seed)
    points = []
    for rate in rates:
        for rank in ranks:
            for step in steps:
                norm = float((exposed(1.0, step, rate)) ** 0.5 * np.exp(0.2 * rng.normal()))
                seen = 15.0 * norm if gamma is None else exposed(gamma, step, rate)
                params = rank * LLAMA_2_7B_PARAMS_PER_RANK
                points.append(
                    Point(
                        run=f"rank-{rank}-rate-{rate:g}",
                        rank=rank,
                        trainable_params=params,
                        step=step,
                        learning_rate=rate,
                        delta_norm=norm,
                        ft_loss=OPENORCA.ft_loss(params, seen),
                        ce_soft=OPENORCA.forgetting(params, seen) + rng.normal() * noise_sd,
                    )
                )
    return points
