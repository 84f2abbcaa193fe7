"""Points on known laws, as a client would send them."""

import random
from typing import Any

Json = dict[str, Any]
RANKS, STEPS, SEEDS = (4, 8, 16, 32), (20, 40, 80, 120, 160, 200), (1, 2)


def ft_loss_at(rank: int, step: int) -> float:
    return 2.0 + 0.8 * rank**-0.3 + 1.2 * step**-0.4


def kl_at(rank: int, step: int, rate: float = 1e-3) -> float:
    """A joint law; the learning rate counts as steps do."""
    return 2.0 - 0.7 * (1000 * rank) ** -0.06 - 1.6 * (step * rate / 1e-3) ** -0.08


def wobble(*place: int | str) -> float:
    """Noise of two thousandths, the same whenever it is asked for."""
    return random.Random(repr(place)).gauss(0.0, 0.002)


def grid(**fields: Any) -> list[Json]:
    """4 ranks x 2 seeds x 6 steps with KL on the joint law, a little noise, and a known L_ft."""
    return [
        {
            "run": f"r{rank}-s{seed}",
            "rank": rank,
            "trainable_params": 1000 * rank,
            "step": step,
            "ft_loss": ft_loss_at(rank, step) + wobble("loss", rank, seed, step),
            "kl": kl_at(rank, step) + wobble("run", rank, seed) + wobble(rank, seed, step),
            **fields,
        }
        for rank in RANKS
        for seed in SEEDS
        for step in STEPS
    ]


def csv_of(points: list[Json]) -> str:
    names = list(points[0])
    lines = [",".join(names), *(",".join(str(point[n]) for n in names) for point in points)]
    return "\n".join(lines) + "\n"
