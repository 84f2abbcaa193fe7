"""A law across learning rates as a value. Its JSON holds every float and all predictions need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.laws.exposure import Exposure, Scale
from service.laws.law import Coefficient, LawFit
from service.laws.quantities import Domain, LawError, Target
from service.laws.rate_power import GammaError
from service.laws.rates import Candidate, Simpler


@dataclass(frozen=True)
class AcrossFit:
    """A law across learning rates, and why its exposure was chosen."""

    scale: Scale
    law: LawFit
    """The joint law of P and X: where it says step, read X."""
    gamma_ci95: tuple[float, float] | None
    """Null where gamma was not fitted, ended on a bound, or has too few runs."""
    gamma_error: GammaError | None
    """What gamma's error adds to predictions; null where gamma has no interval."""
    rates: tuple[float, ...]
    domain: Domain
    """Of the points in steps."""
    delta_norm: tuple[float, float] | None
    """Span of ||dW||, where every point carries it."""
    candidates: tuple[Candidate, ...]
    rivals: tuple[Simpler, ...]
    """Least error first; empty below 3 rates."""
    chosen_by: Literal["held_out", "aicc", "asked"]
    reason: str
    burn_in: int | None
    warnings: tuple[str, ...]

    @property
    def form(self) -> str:
        return "joint_lr"

    @property
    def metric(self) -> Target:
        return self.law.metric

    @property
    def exposure(self) -> Exposure:
        return self.scale.exposure

    @property
    def params_per_rank(self) -> float | None:
        return self.law.params_per_rank

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """The joint law's seven, B in units of X, and gamma where the exposure has one."""
        named = dict(self.law.coefficients)
        if self.scale.gamma is not None:
            told = self.exposure != "rate_power" or self.gamma_ci95 is not None
            named["gamma"] = Coefficient(self.scale.gamma, self.gamma_ci95, identifiable=told)
        return named

    def to_json(self) -> dict[str, Any]:
        """JSON values only; `from_json` gives an equal law back."""
        return {
            "form": self.form,
            "metric": self.metric,
            "scale": self.scale.to_json(),
            "law": self.law.to_json(),
            "gamma_ci95": _listed(self.gamma_ci95),
            "gamma_error": None if self.gamma_error is None else self.gamma_error.to_json(),
            "rates": list(self.rates),
            "domain": self.domain.to_json(),
            "delta_norm": _listed(self.delta_norm),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "rivals": [rival.to_json() for rival in self.rivals],
            "chosen_by": self.chosen_by,
            "reason": self.reason,
            "burn_in": self.burn_in,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AcrossFit":
        """Inverse of `to_json`; a missing key raises LawError."""
        try:
            error = body["gamma_error"]
            return cls(
                scale=Scale.from_json(body["scale"]),
                law=LawFit.from_json(body["law"]),
                gamma_ci95=_pair(body["gamma_ci95"]),
                gamma_error=None if error is None else GammaError.from_json(error),
                rates=tuple(float(rate) for rate in body["rates"]),
                domain=Domain.from_json(body["domain"]),
                delta_norm=_pair(body["delta_norm"]),
                candidates=tuple(Candidate.from_json(one) for one in body["candidates"]),
                rivals=tuple(Simpler.from_json(one) for one in body["rivals"]),
                chosen_by=body["chosen_by"],
                reason=str(body["reason"]),
                burn_in=None if body["burn_in"] is None else int(body["burn_in"]),
                warnings=tuple(str(line) for line in body["warnings"]),
            )
        except (KeyError, TypeError) as missing:
            raise LawError(f"not a stored joint_lr law: {missing}") from missing


def _pair(body: Sequence[float] | None) -> tuple[float, float] | None:
    return None if body is None else (float(body[0]), float(body[1]))


def _listed(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else list(pair)
