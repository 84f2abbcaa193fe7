"""A policy: what a candidate must keep to. It is committed beside the code that trains, as
`forgetting.yml`; metric names are those of a result."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from service.laws.sequential import CLIP
from service.laws.statistic import LEAST, Check
from service.laws.verdict import OnInconclusive
from service.schemas.candidates import Candidate
from service.schemas.fields import Label, Name, Strict

MAX_CHECKS, MAX_BASELINES = 32, 8

Id = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Mean = Literal["kl", "kl_reverse", "ce_soft", "ce_hard", "nll_tuned"]
Agreement = Literal["same_top", "same_top5"]
Percentile = Literal[
    "kl_percentiles.p99.9",
    "kl_percentiles.p99",
    "kl_percentiles.p95",
    "kl_percentiles.p90",
    "kl_percentiles.median",
    "kl_percentiles.p10",
    "kl_percentiles.p5",
    "kl_percentiles.p1",
    "kl_percentiles.p0.1",
]
Number = Literal["law_residual", "law_residual_z"]
Nats = Annotated[float, Field(ge=LEAST, le=1000)]
Share = Annotated[float, Field(ge=LEAST, le=1 - LEAST)]
Finite = Annotated[float, Field(ge=-1000, le=1000)]


Limited = TypeVar("Limited", bound="_Checked")


class _Checked(Strict):
    id: Id
    informational: bool = Field(
        False, description="Reported, never counted, and never a reason to score more."
    )

    def pure(self) -> Check:
        """As `service.laws.gate` takes it."""
        return Check(**self.model_dump())


class MeanCheck(_Checked):
    """A mean over all scored positions, nats per token."""

    metric: Mean
    fail_above: Nats | None = None
    warn_above: Nats | None = None
    clip: float = Field(
        CLIP, gt=1 + LEAST, le=1000, description="Window values are clipped at this many limits."
    )

    @model_validator(mode="after")
    def limited(self) -> Self:
        return _ordered(self, fail="fail_above", warn="warn_above")


class IncreaseCheck(_Checked):
    """How much more than a baseline adapter, paired window by window; nats per token."""

    metric: Mean
    baseline: Id
    max_increase: Nats
    warn_above: Nats | None = None
    clip: float = Field(
        CLIP, gt=1 + LEAST, le=1000, description="Window values are clipped at this many limits."
    )

    @model_validator(mode="after")
    def limited(self) -> Self:
        return _ordered(self, fail="max_increase", warn="warn_above")


class PercentileCheck(_Checked):
    """A percentile of KL over positions, nats."""

    metric: Percentile
    fail_above: Nats | None = None
    warn_above: Nats | None = None

    @model_validator(mode="after")
    def limited(self) -> Self:
        return _ordered(self, fail="fail_above", warn="warn_above")


class AgreementCheck(_Checked):
    """Share of positions at which base and candidate agree."""

    metric: Agreement
    fail_below: Share | None = None
    warn_below: Share | None = None

    @model_validator(mode="after")
    def limited(self) -> Self:
        return _ordered(self, fail="fail_below", warn="warn_below")


class NumberCheck(_Checked):
    """Forgetting beyond what the recipe's law expects at this held-out loss: nats per token, or in
    halves of the law's 95 % interval, times 1.96 (`law_residual_z`)."""

    metric: Number
    fail_above: Finite | None = None
    warn_above: Finite | None = None

    @model_validator(mode="after")
    def limited(self) -> Self:
        return _ordered(self, fail="fail_above", warn="warn_above")


def _kind(value: Any) -> str:
    """So that a fault is told of the kind that was meant."""
    if not isinstance(value, dict):
        return type(value).__name__
    metric = str(value.get("metric"))
    if metric.startswith("kl_percentiles."):
        return PercentileCheck.__name__
    if metric.startswith("same_top"):
        return AgreementCheck.__name__
    if metric.startswith("law_residual"):
        return NumberCheck.__name__
    increase = "baseline" in value or "max_increase" in value
    return IncreaseCheck.__name__ if increase else MeanCheck.__name__


PolicyCheck = Annotated[
    Annotated[MeanCheck, Tag(MeanCheck.__name__)]
    | Annotated[IncreaseCheck, Tag(IncreaseCheck.__name__)]
    | Annotated[PercentileCheck, Tag(PercentileCheck.__name__)]
    | Annotated[AgreementCheck, Tag(AgreementCheck.__name__)]
    | Annotated[NumberCheck, Tag(NumberCheck.__name__)],
    Discriminator(_kind),
]


class MeasuredOn(Strict):
    """What the limits were found on; a gate on anything else is incomparable. Null: not looked at.
    `forgetting policy init` fills it in. Names are those of a result's provenance."""

    base: Label | None = None
    tokenizer: Label | None = None
    corpus: Label | None = None
    context: int | None = None
    begins_with_bos: bool | None = None
    window_rule: Label | None = None


class Policy(Strict):
    version: Literal[1] = Field(1, description="Of this file's schema.")
    corpus: Name | None = Field(None, description="As `evaluation.corpus`, which it then sets.")
    split: Name | None = None
    context: int | None = Field(None, ge=2, le=131_072)
    alpha: float = Field(
        0.05, ge=1e-6, le=0.2, description="Chance of a wrong verdict, pass or fail."
    )
    on_inconclusive: OnInconclusive = "fail"
    max_windows: int | None = Field(None, ge=1, description="Then it is inconclusive.")
    sequential: bool = Field(
        True, description="False: score every window, for exact values of everything."
    )
    checks: Annotated[list[PolicyCheck], Field(min_length=1, max_length=MAX_CHECKS)]
    baselines: Annotated[dict[Id, Candidate], Field(max_length=MAX_BASELINES)] = Field(
        {}, json_schema_extra={"additionalProperties": False}
    )
    measured_on: MeasuredOn = MeasuredOn()

    @model_validator(mode="after")
    def consistent(self) -> Self:
        seen: set[str] = set()
        for index, check in enumerate(self.checks):
            if check.id in seen:
                raise _fault(self, ("checks", index, "id"), f"a second check is called {check.id}")
            seen.add(check.id)
            if isinstance(check, IncreaseCheck) and check.baseline not in self.baselines:
                raise _fault(
                    self,
                    ("checks", index, "baseline"),
                    f"baselines has no {check.baseline}",
                )
        return self


def _ordered(check: Limited, *, fail: str, warn: str) -> Limited:
    """At least one limit; the warning comes first."""
    limit, warning = getattr(check, fail), getattr(check, warn)
    if limit is None and warning is None:
        raise _fault(check, (fail,), f"give {fail}, {warn} or both")
    if limit is not None and warning is not None:
        wrong = warning <= limit if fail == "fail_below" else warning >= limit
        if wrong:
            side = "above" if fail == "fail_below" else "below"
            raise _fault(check, (warn,), f"{warning:g} must lie {side} {fail} {limit:g}")
    return check


def _fault(model: Any, where: tuple[str | int, ...], said: str) -> ValidationError:
    fault = PydanticCustomError("inconsistent", said)
    return ValidationError.from_exception_data(
        type(model).__name__, [{"type": fault, "loc": where, "input": None}]
    )
