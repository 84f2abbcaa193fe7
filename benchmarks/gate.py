"""The gate's error and cost over many random orders of stored window scores.

Each cell: one candidate, one true value / limit. The wrong verdicts must not exceed alpha
(one-sided binomial test); the fraction scored is what the gate costs. The deciding code is the
service's own. Run: python -m benchmarks.gate [--orders 20000]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binom

from benchmarks.gate_populations import Scores, joined, others, real, synthetic
from service.laws.decide import Bounds, Evidence, estimand
from service.laws.quantities import Floats
from service.laws.sequential import CLIP, EQUAL, clipped_share

ALPHAS = (0.05, 0.01, 0.001)
RATIOS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0, 1.01, 1.05, 1.1, 1.25, 2.0)
BATCH = 8
CHUNK = 1000
SUSPICIOUS = 0.01
"""p-value below which a cell's wrong verdicts are said to exceed alpha."""
Orders = npt.NDArray[np.int16]


@dataclass
class Cell:
    """Of one candidate at one limit, over all orders; axis 0 is alpha."""

    limit: float
    bounds: Bounds
    above: bool
    """Whether the true estimand is above the limit."""
    stops: Floats  # windows scored at the verdict (alphas, orders)
    wrong: npt.NDArray[np.bool_]  # (alphas, orders)
    mean_stops: Floats  # at which the mean alone was decided, the clipped share left aside


def random_orders(n: int, n_orders: int, *, seed: int) -> Orders:
    start = np.tile(np.arange(n, dtype=np.int16), (n_orders, 1))
    return np.random.default_rng(seed).permuted(start, axis=1)


def play(scores: Scores, orders: Orders, *, limit: float, bounds: Bounds) -> Cell:
    """Run the gate's rule along every order until alpha's strictest level has its verdict."""
    n, rows = len(scores.values), len(orders)
    population = scores.population
    evidence = Evidence(population, limit=np.full(rows, limit), bounds=[bounds] * rows)
    above = estimand(scores.values, bounds) - limit > EQUAL * limit
    stops, mean_stops = np.full((2, len(ALPHAS), rows), float(n))
    wrong = np.zeros((len(ALPHAS), rows), bool)
    active = np.arange(rows)
    for start in range(0, n, BATCH):
        windows = orders[active, start : start + BATCH]
        evidence.observe(scores.values[windows], population.controls[windows])
        done = min(start + BATCH, n)
        if done == n:
            break
        for i, alpha in enumerate(ALPHAS):
            failed = evidence.failed(alpha)
            alone = failed | (evidence.bets.less >= -np.log(alpha))
            if alone.any():
                now = active[alone]
                mean_stops[i, now] = np.minimum(mean_stops[i, now], done)
                decided = (failed | evidence.passed(alpha)) & (stops[i, active] == n)
                stops[i, active[decided]] = done
                wrong[i, active[decided]] = failed[decided] != above
        going = stops[:, active].max(axis=0) == n
        if not going.all():
            active = active[going]
            evidence.keep(going)
            if not len(active):
                break
    return Cell(limit, bounds, bool(above), stops, wrong, mean_stops)


def limit_for(scores: Scores, ratio: float, *, clip: float) -> float:
    """The limit of which the mean, clipped at `clip` limits, is `ratio`."""

    def excess(limit: float) -> float:
        return float(np.minimum(scores.values, clip * limit).mean()) - ratio * limit

    plain = scores.kl / ratio
    if scores.values.max() <= clip * plain:
        return plain
    return float(brentq(excess, 1e-6 * plain, plain, xtol=1e-15, rtol=1e-14))


def question(scores: Scores, ratio: float, *, clip: float) -> tuple[float, Bounds]:
    """Limit and bounds; `clip` in limits, or where negative in nats."""
    if scores.bounds is not None:
        return scores.kl / ratio, scores.bounds
    limit = limit_for(scores, ratio, clip=clip) if clip > 0 else scores.kl / ratio
    high = clip * limit if clip > 0 else -clip
    return limit, Bounds(0.0, high, clipped_share(high / limit))


def cells(
    scores: Scores, *, ratios: Sequence[float], n_orders: int, clip: float, seed: int
) -> Iterator[tuple[float, Cell]]:
    parts: dict[float, list[Cell]] = {ratio: [] for ratio in ratios}
    for start in range(0, n_orders, CHUNK):
        count = min(CHUNK, n_orders - start)
        orders = random_orders(len(scores.values), count, seed=seed + start)
        for ratio in ratios:
            limit, bounds = question(scores, ratio, clip=clip)
            parts[ratio].append(play(scores, orders, limit=limit, bounds=bounds))
    for ratio, found in parts.items():
        yield (
            ratio,
            Cell(
                found[0].limit,
                found[0].bounds,
                found[0].above,
                np.concatenate([cell.stops for cell in found], axis=1),
                np.concatenate([cell.wrong for cell in found], axis=1),
                np.concatenate([cell.mean_stops for cell in found], axis=1),
            ),
        )


def floor(scores: Scores, cell: Cell, *, alpha: float) -> int | None:
    """Windows below which no test of error alpha can decide, whatever it bets.

    Someone may have put K windows at a bound, just enough to turn the verdict: not to have met
    one of them must be less likely than alpha. Null where the clipped share turns it.
    """
    n, limit = len(scores.values), cell.limit
    low, high = cell.bounds.low, cell.bounds.high
    value = float(np.clip(scores.values, low, high).mean())
    if cell.above != (value - limit > EQUAL * limit):
        return None
    if cell.above:
        k = np.floor(n * (value - limit) / (value - low))
    else:
        k = np.floor(n * (limit - value) / (high - value)) + 1
    left = n - np.arange(n)
    missed = np.cumsum(np.log(np.maximum(1 - k / left, 1e-300)))
    return int(np.argmax(missed <= np.log(alpha))) + 1


def exceeds(wrong: int, n_orders: int, alpha: float) -> bool:
    """Whether so many wrong verdicts are hardly possible at an error of alpha."""
    return bool(binom.sf(wrong - 1, n_orders, alpha) < SUSPICIOUS)


def table(scores: Scores, found: Iterator[tuple[float, Cell]]) -> Iterator[str]:
    n = len(scores.values)
    spread = scores.values.std() / scores.kl
    yield (
        f"**{scores.name}**: {n:,} windows, mean {scores.kl:.3g}, coefficient of variation "
        f"{spread:.2f}, largest {scores.values.max() / scores.kl:.1f} means."
    )
    yield ""
    head = " | ".join(f"alpha {a:g}: median (share), p90, wrong" for a in ALPHAS)
    yield f"| true / limit | {head} | mean alone at .05, .01 | floor |"
    yield "|---|" + "---|" * (len(ALPHAS) + 2)
    for ratio, cell in found:
        parts = []
        for i, alpha in enumerate(ALPHAS):
            middle, late = np.quantile(cell.stops[i], [0.5, 0.9], method="inverted_cdf")
            wrong = int(cell.wrong[i].sum())
            flag = " **above alpha**" if exceeds(wrong, cell.wrong.shape[1], alpha) else ""
            rate = wrong / cell.wrong.shape[1]
            parts.append(
                f"{middle:,.0f} ({middle / n:.1%}), {late:,.0f} ({late / n:.1%}), {rate:.2%}{flag}"
            )
        alone = np.quantile(cell.mean_stops[:2], 0.5, axis=1, method="inverted_cdf")
        floors = (floor(scores, cell, alpha=alpha) for alpha in ALPHAS[:2])
        least = ", ".join("-" if count is None else f"{count:,}" for count in floors)
        yield (f"| {ratio:g} | {' | '.join(parts)} | {alone[0]:,.0f}, {alone[1]:,.0f} | {least} |")
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--only", default="", help="candidates whose name contains this")
    parser.add_argument(
        "--clip", type=float, default=CLIP, help="in limits; negative: minus nats per window"
    )
    parser.add_argument("--control", default="base", help="or the name of an adapter")
    parser.add_argument("--joined", action="store_true", help="four windows as one")
    parser.add_argument("--others", action="store_true", help="percentile, agreement, increase")
    parser.add_argument("--ratios", type=float, nargs="*", default=list(RATIOS))
    asked = parser.parse_args()
    candidates = real(control=asked.control)
    if asked.joined:
        candidates = [joined(scores) for scores in candidates]
    elif asked.others:
        candidates = others()
    else:
        candidates += synthetic()
    for scores in candidates:
        if asked.only in scores.name and scores.name != asked.control:
            found = cells(
                scores, ratios=asked.ratios, n_orders=asked.orders, clip=asked.clip, seed=17
            )
            for line in table(scores, found):
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
