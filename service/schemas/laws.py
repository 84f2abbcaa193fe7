"""Law points, fitted laws and predictions on the wire."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from service.schemas.fields import Count, Label, Strict
from service.schemas.result import View

Metric = Literal["ce_soft", "kl", "ce_hard", "ft_loss"]
"""Forgetting; or the fine-tuning loss itself, of which a joint law is the tuning law."""
Form = Literal["linear", "joint", "joint_lr"]
BurnIn = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


MAX_POINTS, MAX_RUNS = 5_000, 500
"""Of one request. More are seconds of fitting; memory grows with points times runs."""


class Point(Strict):
    """One checkpoint of one run. Any one of the three metrics suffices."""

    run: Annotated[Label, Field(max_length=128)]
    rank: int | None = Field(None, ge=1, le=1_000_000)
    trainable_params: Count
    step: Count
    ft_loss: float = Field(ge=0)
    """Held-out fine-tuning loss, nats per token."""
    ce_soft: float | None = Field(None, ge=0)
    kl: float | None = Field(None, ge=-1e-3)
    ce_hard: float | None = Field(None, ge=0)
    learning_rate: float | None = Field(None, gt=0)
    """Peak; only the form joint_lr asks for it."""
    delta_norm: float | None = Field(None, ge=0)
    """Frobenius norm of the whole update of the weights."""


class LawFilter(Strict):
    """Which stored jobs to fit over; all given fields must match."""

    base_model: str | None = None
    dataset: str | None = None
    corpus: str | None = None
    group: str | None = None
    sweep: str | None = None
    """Id of a sweep job: its children's points, and those of the pilot that it goes on from."""


def not_too_many_runs(points: list[Point]) -> list[Point]:
    n = len({point.run for point in points})
    if n > MAX_RUNS:
        raise ValueError(f"{n} runs; one law is fitted to at most {MAX_RUNS}")
    return points


class FitRequest(Strict):
    """Either `points`, or a `filter` over stored jobs."""

    points: (
        Annotated[
            list[Point],
            Field(min_length=1, max_length=MAX_POINTS, description=f"Of at most {MAX_RUNS} runs."),
            AfterValidator(not_too_many_runs),
        ]
        | None
    ) = None
    filter: LawFilter | None = None
    metric: Metric = "ce_soft"
    forms: list[Form] | None = Field(None, min_length=1, max_length=3)
    """null: linear and joint; of ft_loss joint alone."""
    burn_in: BurnIn | None = None
    """Points with `step < burn_in` are left out; null: those in the first 20 % of each run."""


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


class ExposureTried(View):
    """One way to count training at different learning rates, and how well it predicts."""

    exposure: str
    gamma: float | None
    gamma_ci95: tuple[float, float] | None
    rmse: float
    aicc: float
    held_out_rmse: float | None
    """Every rate predicted from the others; null below 3 rates."""
    held_out_by_rate: list[float]


class RateRival(View):
    """A simpler predictor of rates that it has not seen, told the cumulated rate for its step."""

    name: str
    title: str
    held_out_rmse: float


class Across(View):
    """In joint_lr an exposure stands where joint has the step: N * (rate / rate0)^gamma, or the
    norm of the update."""

    exposure: Literal["cumulated_rate", "rate_power", "delta_norm", "steps"]
    gamma: float | None
    gamma_ci95: tuple[float, float] | None
    rates: list[float]
    delta_norm: tuple[float, float] | None
    """Span of the norms, where every point has one."""
    chosen_by: Literal["held_out", "aicc", "asked"]
    reason: str
    candidates: list[ExposureTried]
    rivals: list[RateRival]
    """Least error first; empty below 3 rates."""


class Noise(View):
    """How far fresh runs fall from the curve: standard deviations in nats per token."""

    sd: float
    """Of one point of a fresh run."""
    between_sd: float
    """Of a run's offset from the curve."""
    within_sd: float
    """Of a point about its run."""
    freedom: float
    """Degrees of freedom of the two together."""


class Residuals(View):
    """Measured minus fitted, nats per token, one entry per point that was used."""

    run: list[str]
    trainable_params: list[int]
    step: list[int]
    value: list[float]


class LeftOut(View):
    """Points that the law has but was not fitted to."""

    burn_in: int
    """In the warm-up."""
    unmeasured: int
    """Without the metric or, for joint_lr, without a learning rate."""


class LawProvenance(View):
    """With the recipe and the points themselves, all that it takes to fit the law again."""

    points_digest: str
    """sha256 of the points' content, in whatever order they came."""
    burn_in: int | None
    """As asked for; null: the first 20 % of each run."""
    left_out: LeftOut
    fit_version: int
    """Of the mathematics: raised where the same points would give another law."""
    versions: dict[str, str]


class Law(View):
    """linear: L_f = -c_f_ft * L_ft + s_f_ft.
    joint: L_f = sign * (A P^-alpha + B N^-beta)^rho + shift.
    joint_lr: joint, with the learning rate as a third axis."""

    id: str
    form: Form
    metric: Metric
    created_at: str
    version: int | None
    """Place among the fits of one question as its points grew: of this form and metric, over the
    whole group or one sweep's part of it, with this burn-in. Null for points sent by hand."""
    supersedes: str | None
    """The version before; it stays readable."""
    group: str | None
    """Digest of the recipe that the points share (joint_lr: of the recipe without its learning
    rate); null for points sent by hand."""
    recipe: dict[str, Any] | None
    coefficients: dict[str, Coefficient]
    across: Across | None
    """How the learning rate enters; of joint_lr alone."""
    r2: float
    rmse: float
    n_points: int
    n_runs: int
    params_per_rank: float | None
    """trainable_params = params_per_rank * rank, where the points agree on it."""
    domain: Domain
    condition_number: float | None
    noise: Noise
    residuals: Residuals | None
    """null for joint_lr, where an exposure stands for the step."""
    provenance: LawProvenance
    points: list[Point]
    warnings: list[str]
    judgement: dict[str, Any] | None
    """How far to trust the law: docs/judgement.md. null where there is too little to judge."""


class PendingLaw(View):
    """A law that a recipe group has too few points for."""

    group: str
    recipe: dict[str, Any]
    form: Form
    metric: Metric
    n_points: int
    n_runs: int
    missing: dict[Literal["points", "trainable_params", "step", "learning_rate"], int]
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
