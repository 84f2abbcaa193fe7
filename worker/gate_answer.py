"""What a gate says of its checks, in the units that people know them by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.laws.gate import CheckOutcome, Gate, Outcome, counts
from service.laws.statistic import AGREEMENTS, NUMBERS, PERCENTILES, Check
from service.laws.verdict import Verdict
from service.schemas.gate import GateCandidate, GateCheck, GateCost, GateInterval, GateResult
from service.schemas.result import NoiseFloor, Provenance
from worker.question import Question
from worker.reader import Columns
from worker.scored import Scored
from worker.worst import worst_tokens

REFUSED = frozenset({Verdict.INCOMPARABLE, Verdict.NOT_MEASURABLE})


@dataclass(frozen=True)
class Told:
    """A finished gate: what was asked, what was seen, what was decided."""

    question: Question
    gate: Gate
    outcome: Outcome
    scored: Scored
    noise: NoiseFloor | None
    provenance: Provenance


def answer(told: Told, cost: GateCost, warnings: Sequence[str]) -> GateResult:
    question, outcome, policy = told.question, told.outcome, told.question.spec.policy
    columns = told.scored.columns()
    windows = question.windows.only(told.scored.windows) if columns else None
    tokenizer = question.base.tokenizer
    return GateResult(
        verdict=outcome.verdict,
        exit_code=outcome.exit_code,
        alpha=policy.alpha,
        on_inconclusive=policy.on_inconclusive,
        checks=[
            _check(check, found, told.gate, columns)
            for check, found in zip(told.gate.checks, outcome.checks, strict=True)
        ],
        different=list(told.gate.conditions.different),
        n_scored=outcome.n_scored,
        n_windows=outcome.n_windows,
        fraction=outcome.fraction,
        n_positions_scored=windows.n_positions if windows else 0,
        order=question.digest,
        candidate=GateCandidate(
            name=question.candidate.name,
            rank=question.candidate.rank,
            trainable_params=question.candidate.trainable_params,
        ),
        worst_tokens=worst_tokens(windows, columns, columns, tokenizer) if windows else [],
        engine=question.engine,
        noise_floor=told.noise,
        parity=None,
        provenance=told.provenance,
        cost=cost,
        warnings=[*warnings, *_clipped(told.gate, outcome)],
    )


def _clipped(gate: Gate, outcome: Outcome) -> list[str]:
    """A sentence per check of whose windows some were clipped."""
    return [
        f"check {check.id}: {found.n_clipped} of {outcome.n_scored} windows scored lie beyond "
        f"{check.clip:g} limits and were tested as {check.clip:g}; the interval is of that, the "
        "value is not"
        for check, found in zip(gate.checks, outcome.checks, strict=True)
        if found.n_clipped
    ]


def value_of(check: Check, columns: Columns) -> float | None:
    """In the metric's own unit, over all positions scored; of a percentile the smallest value that
    at most the rest of them exceeds, which is what the test compares."""
    if not columns:
        return None
    if check.metric in PERCENTILES:
        share = PERCENTILES[check.metric]
        return float(np.quantile(columns["kl"], share, method="inverted_cdf"))
    values = _mean(columns[check.metric])
    if check.baseline is not None:
        return values - _mean(columns[f"{check.metric}@{check.baseline}"])
    return values


def _check(check: Check, found: CheckOutcome, gate: Gate, columns: Columns) -> GateCheck:
    number = check.metric in NUMBERS
    turned = check.metric in AGREEMENTS
    interval = None
    if found.interval is not None:
        low, high = found.interval.low, found.interval.high
        interval = GateInterval(low=1 - high if turned else low, high=1 - low if turned else high)
    shared: dict[str, Any] = {
        "id": check.id,
        "metric": check.metric,
        "verdict": found.verdict,
        "reason": found.reason,
        "informational": check.informational,
        "baseline": check.baseline,
        "limit": check.fails if check.fails is not None else check.warns,
        "unit": _unit(check),
        "tested": _tested(check, found, gate),
    }
    if number:
        return GateCheck(**shared, value=found.value)
    return GateCheck(
        **shared,
        value=value_of(check, columns),
        estimand=_turned(found.value, turned),
        estimand_limit=_turned(found.limit, turned),
        interval=interval,
        n_clipped=found.n_clipped,
    )


def _tested(check: Check, found: CheckOutcome, gate: Gate) -> str:
    if not counts(check) or found.verdict in REFUSED:
        return "not"
    if check.metric in NUMBERS:
        return "as one number"
    return "on every window" if gate.exhaustive else "sequentially"


def _unit(check: Check) -> str:
    if check.metric in PERCENTILES:
        return "nats"
    if check.metric in AGREEMENTS:
        return "share"
    return "z" if check.metric == "law_residual_z" else "nats/token"


def _turned(value: float | None, turned: bool) -> float | None:
    """Of agreement the share that disagrees."""
    return 1 - value if turned and value is not None else value


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64))
