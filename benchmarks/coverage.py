"""How often the 95 % intervals hold what they promise, on points whose truth is known.

Each study draws points about a Table 1 law with noise that gives the fit the paper's R2, fits the
joint law, and asks it for the true curve (`ci95`) and for a fresh run (`pi95`) at four places.
Noise is independent, or half of its variance is an offset of the run and half drifts along the
run's checkpoints (AR(1), 0.8 from one to the next). Widths and errors are medians.
Run: python -m benchmarks.coverage [--studies 500] [--seed 1]
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from service.laws import Point, intervals, joint, robust
from service.laws.clusters import Clusters
from service.laws.curve import Plane, centred, gradient
from service.laws.forgetting import (
    LLAMA_2_7B_PARAMS_PER_RANK,
    NEWS,
    OPENORCA,
    PAPER_RANKS,
    PaperLaw,
)
from service.laws.law import COEFFICIENTS
from service.laws.quantities import Floats, Sample, sample
from service.laws.scatter import scatter

PERSISTENCE, OFFSET_SHARE = 0.8, 0.5
"""Of run effects: correlation of neighbours, and the offset's part of the variance."""
N_STARTS = 4


@dataclass(frozen=True)
class Design:
    """Which runs are made, and which checkpoints of each are measured."""

    name: str
    ranks: tuple[int, ...]
    n_seeds: int
    steps: tuple[int, ...]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Rank and seed of each."""
        return [(rank, seed) for rank in self.ranks for seed in range(self.n_seeds)]


GRID = Design("the paper's grid", PAPER_RANKS, 1, tuple(range(50, 261, 10)))
SWEEP = Design("default sweep", PAPER_RANKS, 3, (52, 65, 82, 104, 130, 164, 207, 260))
LAWS = {"OpenOrca": (OPENORCA, 0.9598), "News": (NEWS, 0.9769)}
"""Table 1's laws and the R2 of the paper's joint fits."""
NOISES = ("independent", "run effects")


@dataclass(frozen=True)
class Place:
    """Where the law is asked, and which points it was fitted to."""

    name: str
    rank: int
    step: int
    below_rank: int
    until: int


def places(design: Design) -> list[Place]:
    """Within the grid, at its far corner, at a rank and at steps that were left out."""
    most, last = max(design.ranks), max(design.steps)
    middle = min(design.steps, key=lambda step: abs(step - 140))
    return [
        Place("in the grid", 64, middle, most + 1, last),
        Place("its far corner", most, last, most + 1, last),
        Place(f"rank {most} held out", most, last, most, last),
        Place("last half of the steps held out", 64, last, most + 1, last // 2),
    ]


@dataclass(frozen=True)
class Cell:
    """What came of the studies of one law, design, noise and place."""

    law: str
    design: str
    noise: str
    place: str
    curve_held: float
    """Share of studies whose `ci95` holds the true curve."""
    run_held: float
    """Share of studies whose `pi95` holds a fresh run's point."""
    curve_width: float
    """Median width of `ci95`, nats."""
    run_width: float
    error: float
    """Median absolute error of the predicted curve, nats."""
    within: float
    """Share of studies whose curve is right within 0.01 nats."""
    r2: float
    """Of the fit that was asked, mean over the studies."""


def covariance(design: Design, noise: str) -> Floats:
    """Of one run's points, with a variance of 1: (n, n)."""
    order = np.arange(len(design.steps))
    if noise == "independent":
        return np.eye(len(order))
    lag = np.abs(order[:, None] - order)
    return np.asarray(OFFSET_SHARE + (1.0 - OFFSET_SHARE) * PERSISTENCE**lag)


def noise_sd(law: PaperLaw, design: Design, noise: str, *, r2: float) -> float:
    """Standard deviation of the noise that makes the joint fit's R2 `r2` on average.

    By linear theory: the six coefficients take up part of the noise, of run effects most.
    """
    params = np.repeat(
        [float(rank * LLAMA_2_7B_PARAMS_PER_RANK) for rank, _ in design.runs], len(design.steps)
    )
    step = np.tile(np.array(design.steps, dtype=float), len(design.runs))
    plane = Plane.at(params, step, centre=(np.log(params).mean(), np.log(step).mean()))
    shape, _, slope = true_shape(law, plane)
    jacobian = gradient(shape, slope, plane)
    axes = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0), full_matrices=False)[0]
    whole = np.kron(np.eye(len(design.runs)), covariance(design, noise))
    signal = truth(law, design)
    left = np.trace(whole) - np.trace(axes.T @ whole @ axes)
    about_mean = np.trace(whole) - whole.mean() * len(whole)
    rest = 1.0 - r2
    return float(np.sqrt(rest * signal.size * signal.var() / (left - rest * about_mean)))


def truth(law: PaperLaw, design: Design) -> Floats:
    """Forgetting per run and step."""
    return np.array(
        [
            [law.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, step) for step in design.steps]
            for rank, _ in design.runs
        ]
    )


def true_shape(law: PaperLaw, plane: Plane) -> tuple[Floats, float, float]:
    """The true law about the centre of some points: shape (1, 4), level and slope."""
    return centred(np.array([law.joint()[name] for name in COEFFICIENTS["joint"]]), plane)


def bands(
    law: PaperLaw, kept: Sample, values: Floats, places: Sequence[Place]
) -> tuple[Floats, Floats, Floats, Floats]:
    """What the joint law says at every place, for each row of `values` in place of `kept`'s.

    Predicted curve, half-width of `ci95` and of `pi95`, each (n, places), and R2 (n,). The
    searches of all studies run as one batch, from N_STARTS starts and the truth; a study alone
    is what `fit` and `predict` do.
    """
    plane, weight = Plane.of(kept), kept.weight[None, :]
    begin = np.vstack([true_shape(law, plane)[0], joint.starts(N_STARTS, seed=17)])
    n, each = len(values), len(begin)
    scale = np.full((n, 1), np.inf)
    shape = np.tile(begin, (n, 1))
    for _ in range(2):
        found = joint.descend(
            shape,
            plane,
            np.repeat(values, each, axis=0),
            scale=np.repeat(scale, each, axis=0),
            kept=weight,
            tolerance=1e-7,
        ).best(of=each)
        residuals = found.residuals(plane, values)
        if np.isfinite(scale[0, 0]):
            break
        spreads = np.ptp(values, axis=1)
        scale[:, 0] = [
            robust.scale_of(row, kept.weight, spread=float(spread), n_coefficients=6)
            for row, spread in zip(residuals, spreads, strict=True)
        ]
        shape, each = found.shape, 1
    asked = Plane.at(
        [place.rank * LLAMA_2_7B_PARAMS_PER_RANK for place in places],
        [place.step for place in places],
        centre=(plane.log_p0, plane.log_n0),
    )
    rows = np.empty((3, n, len(places)))
    for i in range(n):
        shape, slope = found.shape[i : i + 1], float(found.slope[i])
        jacobian = gradient(shape, slope, plane)
        pseudo = robust.pseudo_residuals(residuals[i], kept.weight, float(scale[i, 0]))
        at_places = gradient(shape, slope, asked)
        band = intervals.band(
            Clusters.of(kept, jacobian, pseudo), scatter(kept, jacobian, residuals[i]), at_places
        )
        rows[:, i] = found.level[i] + slope * at_places[:, 4], band.curve, band.new_run
    r2 = 1.0 - residuals.var(axis=1) / values.var(axis=1)
    return rows[0], rows[1], rows[2], r2


def cells(
    studies: int,
    *,
    designs: Sequence[Design] = (GRID, SWEEP),
    noises: Sequence[str] = NOISES,
    laws: Sequence[str] = tuple(LAWS),
    seed: int = 1,
) -> Iterator[Cell]:
    """Four cells, one per place, for every law, design and noise."""
    for name in laws:
        law, r2 = LAWS[name]
        for design in designs:
            for noise in noises:
                yield from _cells(name, law, design, noise, r2=r2, studies=studies, seed=seed)


def _cells(
    name: str, law: PaperLaw, design: Design, noise: str, *, r2: float, studies: int, seed: int
) -> Iterator[Cell]:
    root = np.linalg.cholesky(covariance(design, noise))
    sd, mean = noise_sd(law, design, noise, r2=r2), truth(law, design)
    rng = np.random.default_rng(seed)
    value = mean + sd * rng.normal(size=(studies, *mean.shape)) @ root.T
    fresh = sd * rng.normal(size=(studies, len(design.steps))) @ root.T
    for kept, asked in groupby(places(design), key=lambda place: (place.below_rank, place.until)):
        there = list(asked)
        rows = [row for row, (rank, _) in enumerate(design.runs) if rank < kept[0]]
        columns = [column for column, step in enumerate(design.steps) if step <= kept[1]]
        points, order = sample_of(law, design, rows, columns)
        values = value[:, rows][:, :, columns].reshape(studies, -1)[:, order]
        curve, curve_half, run_half, found = bands(law, points, values, there)
        for column, place in enumerate(there):
            true = law.forgetting(place.rank * LLAMA_2_7B_PARAMS_PER_RANK, place.step)
            off = np.abs(curve[:, column] - true)
            run = true + fresh[:, design.steps.index(place.step)]
            yield Cell(
                law=name,
                design=design.name,
                noise=noise,
                place=place.name,
                curve_held=float(np.mean(off <= curve_half[:, column])),
                run_held=float(np.mean(np.abs(curve[:, column] - run) <= run_half[:, column])),
                curve_width=float(np.median(2.0 * curve_half[:, column])),
                run_width=float(np.median(2.0 * run_half[:, column])),
                error=float(np.median(off)),
                within=float(np.mean(off < 0.01)),
                r2=float(found.mean()),
            )


def sample_of(
    law: PaperLaw, design: Design, rows: Sequence[int], columns: Sequence[int]
) -> tuple[Sample, npt.NDArray[np.intp]]:
    """Some runs' points on the true curve, and their order in the sample."""
    points = [
        Point(
            run=f"rank-{rank}-seed-{seed}",
            rank=rank,
            trainable_params=rank * LLAMA_2_7B_PARAMS_PER_RANK,
            step=design.steps[column],
            ft_loss=1.0,
            # What marks the place in the caller's order; the true values come from `truth`.
            ce_soft=float(index * len(columns) + place),
        )
        for index, (rank, seed) in enumerate(design.runs[row] for row in rows)
        for place, column in enumerate(columns)
    ]
    found = sample(points, "ce_soft", burn_in=0)
    return found, found.value.astype(np.intp)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begin = time.process_time()
    print_row(
        "law", "design", "noise", "place", "ci95 holds", "pi95 holds", "ci95 width", "pi95 width",
        "error", "within .01", "R2",
    )  # fmt: skip
    print_row(*["---"] * 11)
    for cell in cells(arguments.studies, seed=arguments.seed):
        shares = [f"{100 * share:.1f} %" for share in (cell.curve_held, cell.run_held)]
        nats = [f"{size:.4f}" for size in (cell.curve_width, cell.run_width, cell.error)]
        within = f"{100 * cell.within:.0f} %"
        print_row(
            cell.law, cell.design, cell.noise, cell.place, *shares, *nats, within, f"{cell.r2:.3f}"
        )
    print(f"\n{arguments.studies} studies a cell, {time.process_time() - begin:.0f} CPU seconds")  # noqa: T201


def print_row(*row: str) -> None:
    print(f"| {' | '.join(row)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
