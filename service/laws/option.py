"""Runs that could be made, ranked: what a plan is made of, and the plan itself, as values."""

from dataclasses import dataclass
from typing import Any, Literal

from service.laws.predict import Prediction

Fails = Literal["max_ft_loss", "max_forgetting", "both_together"]
"""The limit that no option keeps; `both_together`: none keeps the two at once."""


@dataclass(frozen=True)
class Option:
    """One run that could be made, and what is expected of it. Losses in nats per token."""

    rank: int
    trainable_params: float
    step: int
    learning_rate: float | None
    """Null where the laws are of one rate."""
    ft_loss: Prediction
    forgetting: Prediction
    meets: bool
    """By the curves, every limit that was given is kept."""
    safe: bool | None
    """So it is by the upper ends of `pi95`; null where a law gives no interval."""
    cost: float
    """Tokens trained on, as a share of the largest step searched; rank hardly adds to it."""

    @property
    def extrapolating(self) -> bool:
        return self.ft_loss.extrapolating or self.forgetting.extrapolating

    def to_json(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "trainable_params": self.trainable_params,
            "step": self.step,
            "learning_rate": self.learning_rate,
            "ft_loss": self.ft_loss.to_json(),
            "forgetting": self.forgetting.to_json(),
            "meets": self.meets,
            "safe": self.safe,
            "extrapolating": self.extrapolating,
            "cost": self.cost,
        }


@dataclass(frozen=True)
class Plan:
    """Options, best first: those that keep the limits and do not extrapolate, then the others."""

    answer: str
    """One sentence for people."""
    options: tuple[Option, ...]
    best: Option | None
    """The first that meets the limits; null where none does."""
    safest: Option | None
    """The first that is safe; null where none is."""
    fails: Fails | None
    """Null where an option meets all limits."""
    nearest: Option | None
    """Where none meets the limits: the option that is least above its limits, summed in nats."""
    max_ft_loss: float | None
    max_forgetting: float | None
    searched_ranks: tuple[int, ...]
    searched_steps: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        def shown(option: Option | None) -> dict[str, Any] | None:
            return None if option is None else option.to_json()

        return {
            "answer": self.answer,
            "options": [option.to_json() for option in self.options],
            "best": shown(self.best),
            "safest": shown(self.safest),
            "fails": self.fails,
            "nearest": shown(self.nearest),
            "max_ft_loss": self.max_ft_loss,
            "max_forgetting": self.max_forgetting,
            "searched_ranks": list(self.searched_ranks),
            "searched_steps": list(self.searched_steps),
        }
