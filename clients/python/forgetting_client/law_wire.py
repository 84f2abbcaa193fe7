"""Laws and their answers as they come: plain dicts, typed. See `wire`."""

from typing import Any, Literal, NotRequired, TypedDict

Metric = Literal["ce_soft", "kl", "ce_hard", "ft_loss"]
Form = Literal["linear", "joint", "joint_lr"]


class Point(TypedDict):
    """One checkpoint of one run; any one of the three metrics suffices."""

    run: str
    rank: NotRequired[int | None]
    trainable_params: int
    step: int
    ft_loss: float
    ce_soft: NotRequired[float | None]
    kl: NotRequired[float | None]
    ce_hard: NotRequired[float | None]
    learning_rate: NotRequired[float | None]
    delta_norm: NotRequired[float | None]


class Coefficient(TypedDict):
    value: float
    ci95: tuple[float, float] | None
    identifiable: bool


class Domain(TypedDict):
    trainable_params: tuple[int, int]
    step: tuple[int, int]
    ft_loss: tuple[float, float]
    ranks: list[int]


class ExposureTried(TypedDict):
    exposure: str
    gamma: float | None
    gamma_ci95: tuple[float, float] | None
    rmse: float
    aicc: float
    held_out_rmse: float | None
    held_out_by_rate: list[float]


class RateRival(TypedDict):
    """A simpler predictor of rates that it has not seen."""

    name: str
    title: str
    held_out_rmse: float


class Across(TypedDict):
    """How the learning rate enters a law of form joint_lr."""

    exposure: str
    gamma: float | None
    gamma_ci95: tuple[float, float] | None
    rates: list[float]
    delta_norm: tuple[float, float] | None
    chosen_by: Literal["held_out", "aicc", "asked"]
    reason: str
    candidates: list[ExposureTried]
    rivals: list[RateRival]


class Noise(TypedDict):
    """How far fresh runs fall from the curve: standard deviations, nats per token."""

    sd: float
    between_sd: float
    within_sd: float
    freedom: float


class Residuals(TypedDict):
    """Measured minus fitted, one entry per point that was used."""

    run: list[str]
    trainable_params: list[int]
    step: list[int]
    value: list[float]


class LeftOut(TypedDict):
    burn_in: int
    unmeasured: int


class LawProvenance(TypedDict):
    points_digest: str
    burn_in: int | None
    left_out: LeftOut
    fit_version: int
    versions: dict[str, str]


class Law(TypedDict):
    id: str
    form: Form
    metric: Metric
    created_at: str
    version: int | None
    supersedes: str | None
    group: str | None
    recipe: dict[str, Any] | None
    coefficients: dict[str, Coefficient]
    across: Across | None
    r2: float
    rmse: float
    n_points: int
    n_runs: int
    params_per_rank: float | None
    domain: Domain
    condition_number: float | None
    noise: Noise
    residuals: Residuals | None
    provenance: LawProvenance
    points: list[Point]
    warnings: list[str]
    judgement: dict[str, Any] | None


class PendingLaw(TypedDict):
    """A law that a recipe group has too few points for."""

    group: str
    recipe: dict[str, Any]
    form: Form
    metric: Metric
    n_points: int
    n_runs: int
    missing: dict[str, int]
    detail: str


class Forecast(TypedDict):
    """What is expected at one place, nats per token."""

    value: float
    ci95: tuple[float, float] | None
    pi95: tuple[float, float] | None
    extrapolating: bool
    distances: dict[str, float | None]
    warnings: list[str]


class Prediction(Forecast):
    law: str
    metric: Metric


class Furthest(TypedDict):
    outcome: Literal["found", "never_reached", "always_above", "no_interval"]
    at: float | None
    reason: str | None
    extrapolating: bool
    prediction: Forecast | None


class Inverse(TypedDict):
    """How far one may go: by the curve, and so that 95 % of new runs stay below."""

    law: str
    metric: Metric
    axis: Literal["step", "rank", "trainable_params", "ft_loss"]
    max_forgetting: float
    searched: tuple[float, float]
    value: Furthest
    safe: Furthest


class Option(TypedDict):
    rank: int
    trainable_params: float
    step: int
    learning_rate: float | None
    ft_loss: Forecast
    forgetting: Forecast
    meets: bool
    safe: bool | None
    extrapolating: bool
    cost: float


class Plan(TypedDict):
    """Options for one goal, best first."""

    law: str
    tuning_law: str
    answer: str
    options: list[Option]
    best: Option | None
    safest: Option | None
    fails: Literal["max_ft_loss", "max_forgetting", "both_together"] | None
    nearest: Option | None
    max_ft_loss: float | None
    max_forgetting: float | None
    searched_ranks: list[int]
    searched_steps: tuple[int, int]
