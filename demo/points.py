"""What the service answered, as it is plotted. A picture can be read back, and so be checked."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One checkpoint of one job. Losses are nats per token."""

    job: str
    rank: int
    trainable_params: int
    step: int
    ft_loss: float
    ce_soft: float
    kl: float
    same_top: float


@dataclass(frozen=True)
class Predicted:
    """One point of a law's curve: forgetting at a loss, or at a rank and a step."""

    law: str
    value: float
    low: float | None
    high: float | None
    ft_loss: float | None = None
    rank: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class Picture:
    """One Vega-Lite spec, from which both the PNG and the page are made."""

    name: str
    spec: dict[str, Any]


def rows(picture: Picture) -> tuple[list[Measured], list[Predicted]]:
    """What is plotted, read back from the picture itself, without repetitions."""
    measured: dict[Measured, None] = {}
    predicted: dict[Predicted, None] = {}
    for data in picture.spec["datasets"].values():
        for row in data:
            if "job" in row:
                measured[Measured(**row)] = None
            else:
                predicted[Predicted(**row)] = None
    return list(measured), list(predicted)
