"""What a law is asked, and its answers, on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from service.schemas.fields import Count, Strict
from service.schemas.laws import Metric
from service.schemas.result import View


class PredictRequest(Strict):
    """Forward. joint: `rank` or `trainable_params`, with `step`; joint_lr: with `learning_rate`
    too (or `delta_norm` in place of both, where that is its exposure). linear: `ft_loss`.

    Backward: `max_forgetting` with `rank` or `trainable_params` asks for the largest step, with
    `step` for the largest rank, alone for the lowest loss of a line.
    """

    rank: int | None = Field(None, ge=1, le=1_000_000)
    trainable_params: Count | None = None
    step: Count | None = None
    learning_rate: float | None = Field(None, gt=0, le=10)
    delta_norm: float | None = Field(None, gt=0)
    ft_loss: float | None = Field(None, ge=0)
    max_forgetting: float | None = Field(None, ge=0)


class Forecast(View):
    """What is expected at one place, nats per token."""

    value: float
    ci95: tuple[float, float] | None
    """Where the curve lies."""
    pi95: tuple[float, float] | None
    """Where a new run would fall."""
    extrapolating: bool
    distances: dict[str, float | None]
    """Per axis, how far outside the domain in widths of it; 0 inside, null without end."""
    warnings: list[str]


class Prediction(Forecast):
    law: str
    metric: Metric


class Furthest(View):
    """The furthest place that keeps to the limit, and what is expected there."""

    outcome: Literal["found", "never_reached", "always_above", "no_interval"]
    at: float | None
    """Whole steps, rank or parameters, or the lowest ft_loss; null unless found."""
    reason: str | None
    extrapolating: bool
    prediction: Forecast | None
    """At the answer; without one, at the end of the search."""


class Inverse(View):
    """How far one may go with forgetting of at most `max_forgetting`."""

    law: str
    metric: Metric
    axis: Literal["step", "rank", "trainable_params", "ft_loss"]
    max_forgetting: float
    searched: tuple[float, float]
    value: Furthest
    """By the curve: half of new runs forget more."""
    safe: Furthest
    """By the upper end of pi95: 95 % of new runs stay below."""


class PlanRequest(Strict):
    """A goal for the fine-tuning loss, a limit of forgetting, or both."""

    max_ft_loss: float | None = Field(None, ge=0)
    max_forgetting: float | None = Field(None, ge=0)
    ranks: Annotated[
        list[Annotated[int, Field(ge=1, le=1_000_000)]] | None, Field(min_length=1, max_length=64)
    ] = None
    """null: the measured ranks and the powers of two between."""
    learning_rates: Annotated[
        list[Annotated[float, Field(gt=0, le=10)]] | None, Field(min_length=1, max_length=16)
    ] = None
    """Of joint_lr laws; null: the measured ones."""
    max_step: int | None = Field(None, ge=1, le=1_000_000_000)
    """null: the last measured step."""
    limit: int = Field(10, ge=1, le=100)


class Option(View):
    """One run that could be made."""

    rank: int
    trainable_params: float
    step: int
    learning_rate: float | None
    ft_loss: Forecast
    forgetting: Forecast
    meets: bool
    """By the curves, every limit is kept."""
    safe: bool | None
    """So it is by the upper ends of pi95; null where a law gives no interval."""
    extrapolating: bool
    cost: float
    """Steps, as a share of the most that were searched."""


class Plan(View):
    """Options for one goal, best first."""

    law: str
    tuning_law: str
    """The law of ft_loss over the same points, which said what loss is reached."""
    answer: str
    options: list[Option]
    best: Option | None
    safest: Option | None
    fails: Literal["max_ft_loss", "max_forgetting", "both_together"] | None
    """The limit that no option keeps."""
    nearest: Option | None
    max_ft_loss: float | None
    max_forgetting: float | None
    searched_ranks: list[int]
    searched_steps: tuple[int, int]
