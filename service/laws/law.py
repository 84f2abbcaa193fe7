"""A fitted law as a value. Its JSON holds every float exactly and all that predictions need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.laws.clusters import Clusters
from service.laws.quantities import FORMS, TARGETS, Domain, Form, LawError, Target
from service.laws.scatter import Scatter

COEFFICIENTS: dict[Form, tuple[str, ...]] = {
    "linear": ("c_f_ft", "s_f_ft"),
    "joint": ("A", "alpha", "B", "beta", "rho", "shift", "sign"),
}
"""Names in the order of `LawFit.values`. `sign` is +1 or -1."""


@dataclass(frozen=True)
class Coefficient:
    """One number of a law. Not identifiable: the points do not tell it; predictions may be fine."""

    value: float
    ci95: tuple[float, float] | None
    identifiable: bool

    def to_json(self) -> dict[str, Any]:
        interval = None if self.ci95 is None else list(self.ci95)
        return {"value": self.value, "ci95": interval, "identifiable": self.identifiable}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Coefficient":
        interval = body["ci95"]
        return cls(
            value=float(body["value"]),
            ci95=None if interval is None else (float(interval[0]), float(interval[1])),
            identifiable=bool(body["identifiable"]),
        )


@dataclass(frozen=True)
class Residuals:
    """Measured minus fitted, nats per token, one entry per point that was used."""

    run: tuple[str, ...]
    trainable_params: tuple[int, ...]
    step: tuple[int, ...]
    value: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": list(self.run),
            "trainable_params": list(self.trainable_params),
            "step": list(self.step),
            "value": list(self.value),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Residuals":
        return cls(
            run=tuple(str(x) for x in body["run"]),
            trainable_params=tuple(int(x) for x in body["trainable_params"]),
            step=tuple(int(x) for x in body["step"]),
            value=tuple(float(x) for x in body["value"]),
        )


@dataclass(frozen=True)
class LawFit:
    """linear: L_f = -c_f_ft * L_ft + s_f_ft.
    joint: L_f = sign * (A P^-alpha + B N^-beta)^rho + shift.

    P is trainable_params, N is step, L_ft is ft_loss, L_f is forgetting by `metric`.
    """

    form: Form
    metric: Target
    coefficients: dict[str, Coefficient]
    r2: float
    """In-sample: 1 - sum of squared residuals / sum of squares about the mean."""
    rmse: float
    """In-sample root mean squared residual, nats per token."""
    n_points: int
    n_runs: int
    params_per_rank: float | None
    domain: Domain
    condition_number: float | None
    """Of the Jacobian with columns of length one; joint: about the centre of the points, so
    that it does not depend on the units of P and N. Null where it is singular."""
    warnings: tuple[str, ...]
    """Each begins with a stable word and a colon."""
    loss: str
    """`soft_l1` or `squares`."""
    robust_scale: float | None
    """Residual at which soft-L1 turns from quadratic to linear, in nats; null for squares."""
    cost: float
    """What was minimised: the cost of scipy's `least_squares` with `f_scale=robust_scale`."""
    noise: Scatter
    """How far a fresh run falls from the curve."""
    centre: tuple[float, ...]
    """About which the law is linearised. joint: mean ln P and ln N; linear: mean ft_loss."""
    clusters: Clusters | None
    """What intervals are made from; null below `intervals.MIN_RUNS` runs."""
    residuals: Residuals
    burn_in: int | None
    """Points with `step < burn_in` were left out; null: those below a fifth of their run's."""
    n_left_out: int
    """Points of the burn-in."""

    @property
    def noise_sd(self) -> float:
        """Standard deviation of one point of a fresh run about the curve, nats per token."""
        return self.noise.sd

    @property
    def values(self) -> tuple[float, ...]:
        """The coefficients in the order of `COEFFICIENTS`."""
        return tuple(self.coefficients[name].value for name in COEFFICIENTS[self.form])

    def to_json(self) -> dict[str, Any]:
        """JSON values only; `from_json` gives an equal law back."""
        return {
            "form": self.form,
            "metric": self.metric,
            "coefficients": {name: c.to_json() for name, c in self.coefficients.items()},
            "r2": self.r2,
            "rmse": self.rmse,
            "n_points": self.n_points,
            "n_runs": self.n_runs,
            "params_per_rank": self.params_per_rank,
            "domain": self.domain.to_json(),
            "condition_number": self.condition_number,
            "warnings": list(self.warnings),
            "loss": self.loss,
            "robust_scale": self.robust_scale,
            "cost": self.cost,
            "noise": self.noise.to_json(),
            "centre": list(self.centre),
            "clusters": None if self.clusters is None else self.clusters.to_json(),
            "residuals": self.residuals.to_json(),
            "burn_in": self.burn_in,
            "n_left_out": self.n_left_out,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "LawFit":
        """Inverse of `to_json`; further keys are ignored. A missing one raises LawError."""
        try:
            return cls._from_json(body)
        except (KeyError, TypeError) as error:
            raise LawError(f"not a stored law: {error}") from error

    @classmethod
    def _from_json(cls, body: Mapping[str, Any]) -> "LawFit":
        if body["form"] not in FORMS or body["metric"] not in TARGETS:
            raise LawError(f"not a stored law: form {body['form']}, metric {body['metric']}")
        return cls(
            form=body["form"],
            metric=body["metric"],
            coefficients={
                name: Coefficient.from_json(c) for name, c in body["coefficients"].items()
            },
            r2=float(body["r2"]),
            rmse=float(body["rmse"]),
            n_points=int(body["n_points"]),
            n_runs=int(body["n_runs"]),
            params_per_rank=_optional(body["params_per_rank"]),
            domain=Domain.from_json(body["domain"]),
            condition_number=_optional(body["condition_number"]),
            warnings=tuple(str(line) for line in body["warnings"]),
            loss=str(body["loss"]),
            robust_scale=_optional(body["robust_scale"]),
            cost=float(body["cost"]),
            noise=Scatter.from_json(body["noise"]),
            centre=tuple(float(x) for x in body["centre"]),
            clusters=None if body["clusters"] is None else Clusters.from_json(body["clusters"]),
            residuals=Residuals.from_json(body["residuals"]),
            burn_in=None if body["burn_in"] is None else int(body["burn_in"]),
            n_left_out=int(body["n_left_out"]),
        )


def _optional(number: float | None) -> float | None:
    return None if number is None else float(number)
