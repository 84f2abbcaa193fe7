"""The joint fit against a plain loop over scipy's `curve_fit`: cost reached, and time.

Both minimise the same soft-L1 cost over the same points, bounds and number of starts; ours also
works out its intervals. Then 1,000 wild-cluster refits of 1,056 points against the bootstrap loop
that a user would write, which is timed on a few replicates and multiplied.
Run: python -m benchmarks.laws [--starts 16] [--replicates 1000] [--loop 5]
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.bootstrap import wild_cluster
from service.laws import LawFit, Point, fit
from service.laws.forgetting import (
    LLAMA_2_7B_PARAMS_PER_RANK,
    NEWS,
    OPENORCA,
    PAPER_RANKS,
    PaperLaw,
)
from service.laws.quantities import Floats

LOWER = np.array([-30.0, np.log(1e-4), -30.0, np.log(1e-4), np.log(0.1), -5.0])
UPPER = np.array([10.0, np.log(5.0), 10.0, np.log(5.0), np.log(50.0), 5.0])


@dataclass(frozen=True)
class Outcome:
    cost: float
    """Lowest over the starts."""
    converged: int
    """Starts that ended within 0.1 % of the lowest cost of both."""
    seconds: float


def points(law: PaperLaw, *, steps: Sequence[int], noise_sd: float, seed: int) -> list[Point]:
    """The paper's six ranks, Gaussian noise."""
    rng = np.random.default_rng(seed)
    return [
        Point(
            run=f"rank-{rank}",
            rank=rank,
            trainable_params=rank * LLAMA_2_7B_PARAMS_PER_RANK,
            step=step,
            ft_loss=law.ft_loss(rank * LLAMA_2_7B_PARAMS_PER_RANK, step),
            ce_soft=law.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, step)
            + noise_sd * rng.normal(),
        )
        for rank in PAPER_RANKS
        for step in steps
    ]


def log_spaced(n_steps: int) -> list[int]:
    """Steps from 50 to 260, the paper's."""
    return [int(step) for step in np.unique(np.geomspace(50, 260, n_steps).round())]


def wire_form(x: Floats, a: float, al: float, b: float, be: float, r: float, s: float) -> Floats:
    """The joint law with its five positive numbers in logarithms; x: P and N, rescaled."""
    inner = np.exp(a) * x[0] ** -np.exp(al) + np.exp(b) * x[1] ** -np.exp(be)
    return np.asarray(s - inner ** np.exp(r))


def plain_loop(data: list[Point], law: LawFit, *, n_starts: int, seed: int) -> list[float]:
    """Cost that each start of `curve_fit` ends with; infinite where it gives up."""
    assert law.robust_scale is not None
    x = np.array([[p.trainable_params / 1e8 for p in data], [p.step / 100 for p in data]])
    y = np.array([p.ce_soft for p in data])
    rng = np.random.default_rng(seed)
    costs = []
    for _ in range(n_starts):
        start = [*rng.uniform([-2, -4, -2, -4, -1], [0, 0, 0, 0, 2]), 1.0]
        try:
            _, _, info, _, _ = curve_fit(
                wire_form,
                x,
                y,
                p0=start,
                bounds=(LOWER, UPPER),
                loss="soft_l1",
                f_scale=law.robust_scale,
                x_scale="jac",
                max_nfev=3000,
                full_output=True,
            )
        except RuntimeError:  # curve_fit's word for "not converged"
            costs.append(np.inf)
            continue
        z = (info["fvec"] / law.robust_scale) ** 2
        costs.append(law.robust_scale**2 * float(np.sum(np.sqrt(1 + z) - 1)))
    return costs


def compare(data: list[Point], *, n_starts: int) -> tuple[Outcome, Outcome]:
    """Ours, then the plain loop. CPU seconds, so that a busy machine does not count."""
    begin = time.process_time()
    law = fit(data, n_starts=n_starts, burn_in=0)
    ours = time.process_time() - begin
    begin = time.process_time()
    costs = plain_loop(data, law, n_starts=n_starts, seed=1)
    theirs = time.process_time() - begin
    near = 1.001 * min(law.cost, *costs)
    converged = sum(cost <= near for cost in costs)
    return (
        Outcome(cost=law.cost, converged=int(law.cost <= near), seconds=ours),
        Outcome(cost=min(costs), converged=converged, seconds=theirs),
    )


def many_points(law: PaperLaw) -> list[Point]:
    """The paper's grid with 8 seeds a rank: 48 runs of 22 steps."""
    return [
        replace(point, run=f"{point.run}-seed-{seed}")
        for seed in range(8)
        for point in points(law, steps=range(50, 261, 10), noise_sd=0.008, seed=seed)
    ]


def resampled_runs(data: list[Point], rng: np.random.Generator) -> list[Point]:
    """As many runs as there are, drawn with replacement."""
    runs: dict[str, list[Point]] = {}
    for point in data:
        runs.setdefault(point.run, []).append(point)
    names = rng.choice(sorted(runs), size=len(runs))
    return [point for name in names for point in runs[name]]


def replicate(name: str, law: PaperLaw, *, n_replicates: int, n_loop: int) -> str:
    """A row of the table: ours in full, the loop's time extrapolated from `n_loop` replicates."""
    data = many_points(law)
    begin = time.process_time()
    found = fit(data, burn_in=0)
    once = time.process_time() - begin
    begin = time.process_time()
    wild_cluster(found, data, n_replicates=n_replicates)
    ours = time.process_time() - begin
    rng = np.random.default_rng(0)
    begin = time.process_time()
    for _ in range(n_loop):
        # One start a replicate is the kindest way to run it.
        plain_loop(resampled_runs(data, rng), found, n_starts=1, seed=1)
    theirs = (time.process_time() - begin) / n_loop * n_replicates
    return (
        f"| {name} | {len(data)} | {once:.2f} | {ours:.1f} | {theirs:.0f} | {theirs / ours:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=5, help="replicates of the loop that are timed")
    arguments = parser.parse_args()
    n_starts = arguments.starts
    fit(
        points(OPENORCA, steps=log_spaced(4), noise_sd=0.004, seed=0), burn_in=0
    )  # imports and caches
    lines = [
        f"Joint law, {n_starts} starts each, noise 0.004 nats; CPU seconds, ours with intervals.",
        "",
        "| data | points | ours s | curve_fit s | ratio | cost ours / curve_fit "
        "| its starts at the minimum |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, law in (("OpenOrca", OPENORCA), ("News", NEWS)):
        for n_steps in (4, 6, 16):
            data = points(law, steps=log_spaced(n_steps), noise_sd=0.004, seed=n_steps)
            ours, theirs = compare(data, n_starts=n_starts)
            lines.append(
                f"| {name} | {len(data)} | {ours.seconds:.2f} | {theirs.seconds:.2f} "
                f"| {theirs.seconds / ours.seconds:.0f} | {ours.cost / theirs.cost:.6f} "
                f"| {theirs.converged} of {n_starts} |"
            )
    lines += [
        "",
        f"{arguments.replicates} replicates of many points; the loop resamples runs, starts once a "
        f"replicate, and is extrapolated from {arguments.loop} of them.",
        "",
        "| data | points | the law, CPU s | our refits, CPU s | loop, CPU s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, law in (("OpenOrca", OPENORCA), ("News", NEWS)):
        lines.append(replicate(name, law, n_replicates=arguments.replicates, n_loop=arguments.loop))
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
