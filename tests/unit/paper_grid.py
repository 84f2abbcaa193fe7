"""Points made from Table 1 of the paper: the truth is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.laws import LawFit, Point, fit
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, PAPER_RANKS, PaperLaw

STEPS = tuple(range(50, 261, 15))
FEW_STEPS = (50, 70, 100, 140, 190, 260)


def fit_whole(points: Sequence[Point], form: Any = "joint", **options: Any) -> LawFit:
    """`fit` of every point: the paper's steps 50 to 260 are those after its burn-in."""
    return fit(points, form, burn_in=0, **options)


def grid(
    law: PaperLaw,
    *,
    ranks: Sequence[int] = PAPER_RANKS,
    steps: Sequence[int] = STEPS,
    noise_sd: float = 0.0,
    run_sd: float = 0.0,
    seed: int = 0,
) -> list[Point]:
    """One run per rank on the joint law; Gaussian noise per point, and an offset per run.

    `kl` is `ce_soft` less a base entropy of 0.5 nats; `ce_hard` falls where `ce_soft` grows.
    """
    rng = np.random.default_rng(seed)
    points = []
    for rank in ranks:
        params = rank * LLAMA_2_7B_PARAMS_PER_RANK
        offset = rng.normal() * run_sd
        for step in steps:
            value = law.forgetting(params, step) + offset + rng.normal() * noise_sd
            points.append(
                Point(
                    run=f"rank-{rank}-seed-{seed}",
                    rank=rank,
                    trainable_params=params,
                    step=step,
                    ft_loss=law.ft_loss(params, step),
                    ce_soft=value,
                    kl=value - 0.5,
                    ce_hard=2.0 - value,
                )
            )
    return points
