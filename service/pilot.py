"""Pilots: the small ranks and early steps of a sweep, for at most a fifth of its cost.

A pilot's children are children of the whole sweep, some cut short. Where the schedule decays, step
N of a short run is not step N of a long one, so there no run is cut short.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from service.cost import Cost, share
from service.errors import InvalidSpec
from service.schedule import DECAYING, FIRST_SHARE, measured_steps
from service.schemas.spec import FinetuneSpec, SweepSpec

MAX_SHARE = 0.2
EARLY = 0.5
"""A run is cut within its first half, where it is measured often enough there."""
MIN_RANKS = MIN_STEPS = 3
"""What the joint law needs on each axis; three ranks are three runs of each learning rate."""


@dataclass(frozen=True)
class Pilot:
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    """Measured steps of every run, all past the burn-in; the last one is its length."""
    share_of_cost: float
    """Of the whole sweep's, at most: see `service.cost.share`."""


def choose(sweep: SweepSpec) -> Pilot:
    """The longest early runs that the budget allows, then as many of them as it allows.

    Raises InvalidSpec, with the numbers, where a fifth of the cost cannot hold a pilot.
    """
    ranks = sorted(set(sweep.ranks))
    if len(ranks) < MIN_RANKS:
        raise InvalidSpec(
            f"{len(ranks)} ranks; a pilot needs {MIN_RANKS}, as the joint law does", param="ranks"
        )
    seeds = list(dict.fromkeys(sweep.seeds))
    measured = measured_steps(sweep.training, sweep.evaluation)
    n_runs = len(ranks) * len(seeds)
    whole = Cost(steps=n_runs * sweep.training.max_steps, passes=n_runs * len(measured))
    cheapest = 1.0
    for steps in _beginnings(sweep, measured):
        pilots = list(_pilots(ranks, seeds, steps, whole))
        cheapest = min(cheapest, *(pilot.share_of_cost for pilot in pilots))
        affordable = [pilot for pilot in pilots if pilot.share_of_cost <= MAX_SHARE]
        if affordable:
            return max(affordable, key=_worth)
    raise InvalidSpec(
        f"the smallest pilot of this sweep is {cheapest:.0%} of its cost, more than "
        f"{MAX_SHARE:.0%}; a pilot pays for a sweep of more ranks or seeds",
        param="pilot",
        share_of_cost=cheapest,
    )


def children_of(sweep: SweepSpec) -> list[FinetuneSpec]:
    """What a sweep runs, in order: its grid, or its pilot's part of that. Raises InvalidSpec."""
    grid = sweep.grid()
    if not sweep.pilot:
        return grid
    pilot = choose(sweep)
    kept = [
        child
        for child in grid
        if child.training.lora.r in pilot.ranks and child.training.seed in pilot.seeds
    ]
    for child in kept:
        child.training.max_steps = pilot.steps[-1]
        child.training.checkpoints = list(pilot.steps)
    return kept


def rest_of(sweep: SweepSpec, done: Iterable[FinetuneSpec]) -> list[FinetuneSpec]:
    """What the whole sweep has yet to measure after the runs in `done`; nothing is measured twice.

    A run that reached its end in `done` is left out. One that was cut short is trained again,
    since nothing of a finished run is kept to train on from, and measured at the other steps.
    """
    known: dict[tuple[int, int, float], set[int]] = {}
    for child in done:
        steps = measured_steps(child.training, child.evaluation)
        known.setdefault(_run(child), set()).update(steps)
    rest = []
    for child in sweep.grid():
        had = known.get(_run(child), set())
        if child.training.max_steps in had:
            continue
        if had:
            steps = measured_steps(child.training, child.evaluation)
            child.training.checkpoints = [step for step in steps if step not in had]
        rest.append(child)
    return rest


def far_corner(sweep: SweepSpec) -> tuple[int, int]:
    """(rank, step): the largest rank at the end of a whole run, where forgetting is most."""
    return max(sweep.ranks), sweep.training.max_steps


def _run(child: FinetuneSpec) -> tuple[int, int, float]:
    return child.training.lora.r, child.training.seed, child.training.learning_rate


def _beginnings(sweep: SweepSpec, measured: list[int]) -> list[list[int]]:
    """Measured steps past the burn-in, up to each step where a run may be cut; the best first."""
    max_steps = sweep.training.max_steps
    late = [step for step in measured if step >= FIRST_SHARE * max_steps]
    if len(late) < MIN_STEPS:
        raise InvalidSpec(
            f"{len(late)} measured steps past the first fifth of the run; a pilot needs "
            f"{MIN_STEPS}",
            param="evaluation.at" if sweep.evaluation.at == "final" else "training.checkpoints",
        )
    if sweep.training.lr_scheduler_type in DECAYING:
        return [late]
    cuts = [late[:n] for n in range(len(late), MIN_STEPS - 1, -1)]
    early = [steps for steps in cuts if steps[-1] <= EARLY * max_steps]
    return early or [late[:MIN_STEPS]]


def _pilots(ranks: list[int], seeds: list[int], steps: list[int], whole: Cost) -> Iterator[Pilot]:
    """Every choice of smallest ranks, first seeds and number of measured steps, all spread."""
    for n_ranks in range(MIN_RANKS, max(MIN_RANKS, ceil(len(ranks) / 2)) + 1):
        for n_seeds in range(1, len(seeds) + 1):
            for n_steps in range(MIN_STEPS, len(steps) + 1):
                n_runs = n_ranks * n_seeds
                cost = Cost(steps=n_runs * steps[-1], passes=n_runs * n_steps)
                yield Pilot(
                    ranks=tuple(ranks[:n_ranks]),
                    seeds=tuple(seeds[:n_seeds]),
                    steps=tuple(_spread(steps, n_steps)),
                    share_of_cost=share(cost, whole),
                )


def _spread(steps: list[int], n: int) -> list[int]:
    """`n` of the steps, evenly by place, the first and the last among them."""
    return [steps[round(i * (len(steps) - 1) / (n - 1))] for i in range(n)]


def _worth(pilot: Pilot) -> tuple[int, int, int]:
    """Runs first: the interval of a prediction rests on how runs differ."""
    return len(pilot.ranks) * len(pilot.seeds), len(pilot.steps), len(pilot.ranks)
