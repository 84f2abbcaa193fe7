"""A real sweep, judged: what the laws are worth on measured points, good or bad.

The points lie in benchmarks/data/real_sweep.json with the spec that made them and the digests of
everything they depend on. Run: python -m benchmarks.real_sweep
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from service.laws import Judgement, Metric, Point, fit, fit_across, judge, predict

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
    for rival in law.rivals:
        yield f"| {rival.title} | - | - | {rival.held_out_rmse:.4f} |"
    yield ""
    yield f"Chosen: {law.exposure}. {law.reason}"


def outside_table(swept: list[Point]) -> Iterator[str]:
    """How often `pi95` holds points outside those that the joint law was fitted to."""
    steps, ranks = sorted({p.step for p in swept}), sorted({p.rank for p in swept if p.rank})
    half, first = steps[-1] // 2, steps[-1] / 5  # what `fit` leaves out, a pilot never measures

    def pilot(p: Point) -> bool:
        return (p.rank or 0) in ranks[:3] and first <= p.step <= half

    splits: tuple[tuple[str, Callable[[Point], bool], Callable[[Point], bool]], ...] = (
        ("the largest rank", lambda p: p.rank != ranks[-1], lambda p: p.step >= first),
        ("the last half of the steps", lambda p: p.step <= half, lambda p: True),
        ("a pilot's far corner", pilot, lambda p: p.rank == ranks[-1] and p.step == steps[-1]),
    )
    yield "| held out | points | pi95 holds | widest pi95 | largest error |"
    yield "|---|---|---|---|---|"
    for name, kept, asked in splits:
        law = fit([p for p in swept if kept(p)], metric=METRIC)
        held, widths, misses = 0, [], []
        for p in swept:
            if kept(p) or not asked(p):
                continue
            said = predict(law, trainable_params=p.trainable_params, step=p.step)
            assert p.kl is not None
            assert said.pi95 is not None
            held += said.pi95[0] <= p.kl <= said.pi95[1]
            widths.append(said.pi95[1] - said.pi95[0])
            misses.append(abs(p.kl - said.value))
        yield (
            f"| {name} | {len(widths)} | {held} | {max(widths):.3f} nats | {max(misses):.3f} nats |"
        )


def report() -> Iterator[str]:
    body = load()
    yield f"{body['what']}: {body['n_runs']} runs, {len(body['points'])} points, {METRIC}."
    judged = {rate: judge(points(body, rate), metric=METRIC) for rate in rates(body)}
    most = max(rates(body), key=lambda rate: len(points(body, rate)))
    for table in (
        r2_table(judged),
        held_out_table(judged),
        sentences(judged),
        outside_table(points(body, most)),
        across_table(body),
    ):
        yield ""
        yield from table


def main() -> None:
    for line in report():
        print(line)  # noqa: T201


if __name__ == "__main__":
    main()
