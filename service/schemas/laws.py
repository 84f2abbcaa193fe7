"""Law points, fitted laws and predictions on the wire."""

from typing import Annotated, Any, Literal

from pydantic import Field

from service.schemas.result import View
from service.schemas.spec import Strict

Metric = Literal["ce_soft", "kl", "ce_hard"]
Form = Literal["linear", "joint"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Point(Strict):
    """One checkpoint of one run. Any one of the three metrics suffices."""

    run: Annotated[str, Field(min_length=1, max_length=128)]
    rank: int | None = Field(None, ge=1)
    trainable_params: int = Field(ge=1)
    step: int = Field(ge=1)
    ft_loss: float = Field(ge=0)
    """Held-out fine-tuning loss, nats per token."""
    ce_soft: float | None = Field(None, ge=0)
    kl: float | None = Field(None, ge=-1e-3)
    ce_hard: float | None = Field(None, ge=0)
    learning_rate: float | None = Field(None, gt=0)
    """Peak; null where it is not known."""
    delta_norm: float | None = Field(None, ge=0)
    """Frobenius norm of the whole update of the weights."""


class LawFilter(Strict):
    """Which stored jobs to fit over; all given fields must match."""

    base_model: str | None = None
    dataset: str | None = None
    corpus: str | None = None
    group: str | None = None
    sweep: str | None = None
    """Id of a sweep job: its children's points."""


class FitRequest(Strict):
    """Either `points`, or a `filter` over stored jobs."""

    points: Annotated[list[Point], Field(min_length=1, max_length=100_000)] | None = None
    filter: LawFilter | None = None
    metric: Metric = "ce_soft"
    forms: list[Form] = Field(["linear", "joint"], min_length=1, max_length=2)


class Coefficient(View):
    value: float
    ci95: tuple[float, float] | None
    identifiable: bool


class Domain(View):
    """The box that the points span; outside it a prediction extrapolates."""

    trainable_params: tuple[int, int]
    step: tuple[int, int]
    ft_loss: tuple[float, float]
    ranks: list[int]


class Law(View):
    """linear: L_f = -c_f_ft * L_ft + s_f_ft.
    joint: L_f = sign * (A P^-alpha + B N^-beta)^rho + shift."""

    id: str
    form: Form
    metric: Metric
    created_at: str
    group: str | None
    """Digest of the recipe that the points share; null for points sent by hand."""
    recipe: dict[str, Any] | None
    coefficients: dict[str, Coefficient]
    r2: float
    rmse: float
    n_points: int
    n_runs: int
    params_per_rank: float | None
    """trainable_params = params_per_rank * rank, where the points agree on it."""
    domain: Domain
    condition_number: float | None
    points_digest: str
    points: list[Point]
    warnings: list[str]


class PendingLaw(View):
    """A law that a recipe group has too few points for."""

    group: str
    recipe: dict[str, Any]
    form: Form
    metric: Metric
    n_points: int
    n_runs: int
    missing: dict[Literal["points", "trainable_params", "step"], int]
    """How many more are needed: points, or distinct values of an axis. Empty: too little spread."""
    detail: str


class Laws(View):
    """The laws that one request fitted."""

    data: list[Law]


class LawPage(View):
    """Laws, newest first. `pending` is told on the first page."""

    data: list[Law]
    has_more: bool
    pending: list[PendingLaw]


class PredictRequest(Strict):
    """joint: `rank` or `trainable_params`, with `step`. linear: `ft_loss`."""

    rank: int | None = Field(None, ge=1, le=1_000_000)
    trainable_params: int | None = Field(None, ge=1)
    step: int | None = Field(None, ge=1)
    ft_loss: float | None = Field(None, ge=0)


class Prediction(View):
    law: str
    metric: Metric
    value: float
    ci95: tuple[float, float] | None
    """Where the curve lies."""
    pi95: tuple[float, float] | None
    """Where a new run would fall."""
    extrapolating: bool
    warnings: list[str]
