"""A real sweep, judged: what the laws are worth on measured points, good or bad.

The points lie in benchmarks/data/real_sweep.json with the spec that made them and the digests of
everything they depend on. Run: python -m benchmarks.real_sweep
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.laws.across import fit_across
from service.laws.judge import judge
from service.laws.judgement import Judgement
from service.laws.quantities import Metric, Point

DATA = Path(__file__).parent / "data" / "real_sweep.json"
METRIC: Metric = "kl"
SHOWN = ("joint", "linear", "last_value", "log_linear", "quadratic", "mean")


def load() -> dict[str, Any]:
    """Spec, provenance and `points`, as they were measured."""
    body = json.loads(DATA.read_text())
    assert isinstance(body, dict)
    return body


def points(body: dict[str, Any], learning_rate: float | None = None) -> list[Point]:
    """Of one learning rate, which is one recipe; of all without it."""
    rows = [Point(**row) for row in body["points"]]
    return [row for row in rows if learning_rate in (None, row.learning_rate)]


def rates(body: dict[str, Any]) -> list[float]:
    return sorted({row["learning_rate"] for row in body["points"]}, reverse=True)


def r2_table(judged: dict[float, Judgement]) -> Iterator[str]:
    yield "| learning rate | runs | form | R² | within runs | between | unseen runs | RMSE, nats |"
    yield "|---|---|---|---|---|---|---|---|"
    for rate, found in judged.items():
        for form, parts in found.r2.items():
            if parts is None:
                continue
            numbers = [parts.overall, parts.within_runs, parts.between_runs, parts.unseen_runs]
            told = " | ".join("-" if one is None else f"{one:.3f}" for one in numbers)
            yield f"| {rate:g} | {found.n_runs} | {form} | {told} | {parts.rmse:.4f} |"


def held_out_table(judged: dict[float, Judgement]) -> Iterator[str]:
    names = " | ".join(name.replace("_", " ") for name in SHOWN)
    yield f"| learning rate | held out | {names} |"
    yield "|---|---|" + "---|" * len(SHOWN)
    for rate, found in judged.items():
        for kind, errors in found.held_out.items():
            if errors is None:
                continue
            cells = (errors.errors.get(name) for name in SHOWN)
            told = " | ".join("-" if one is None else f"{one.mae:.4f}" for one in cells)
            yield f"| {rate:g} | {kind.replace('_', ' ')} | {told} |"


def sentences(judged: dict[float, Judgement]) -> Iterator[str]:
    for rate, found in judged.items():
        if found.unit is not None:
            yield f"- {rate:g}: one spread is {found.unit.nats:.4f} nats ({found.unit.source})."
        if found.choice is not None:
            yield f"- {rate:g}: {found.choice.reason}"
        if found.sufficiency is not None:
            yield f"- {rate:g}: {found.sufficiency.sentence}"


def across_table(body: dict[str, Any]) -> Iterator[str]:
    law = fit_across(points(body), metric=METRIC)
    yield "| exposure | gamma | RMSE, nats | held-out rates: RMSE, nats |"
    yield "|---|---|---|---|"
    for one in law.candidates:
        gamma = "-" if one.gamma is None else f"{one.gamma:.2f}"
        error = "-" if one.held_out_rmse is None else f"{one.held_out_rmse:.4f}"
        yield f"| {one.exposure} | {gamma} | {one.rmse:.4f} | {error} |"
    yield ""
    yield f"Chosen: {law.exposure}. {law.reason}"


def report() -> Iterator[str]:
    body = load()
    yield f"{body['what']}: {body['n_runs']} runs, {len(body['points'])} points, {METRIC}."
    judged = {rate: judge(points(body, rate), metric=METRIC) for rate in rates(body)}
    for table in (r2_table(judged), held_out_table(judged), sentences(judged), across_table(body)):
        yield ""
        yield from table


def main() -> None:
    for line in report():
        print(line)  # noqa: T201


if __name__ == "__main__":
    main()
