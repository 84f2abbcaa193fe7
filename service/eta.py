"""How far a sweep is and how long it will take, from where its children stand. Pure."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.cost import PASS_STEPS, Cost
from service.jobs import TERMINAL, JobState, Phase

TELLING = 0.02
"""Less of a run than this tells nothing of its pace."""


@dataclass(frozen=True)
class Run:
    """One child as the estimate sees it."""

    cost: Cost
    state: JobState
    done: float
    """Share of its work that is done, 0 to 1."""
    seconds: float | None
    """Since its first start, until its end or now; None before."""
    start_up: float | None
    """Seconds of them before its first step: loading, which no work tells of."""
    attempt: int


def share_of_run(
    state: JobState, phase: str | None, progress: Mapping[str, Any] | None, cost: Cost
) -> float:
    """Share of a run's work behind it. Of an ended run all: nothing of it is left to do.

    Loading and the base's pass, which runs share, count nothing. A checkpoint is measured on the
    corpus and then on held-out rows, each half of its pass.
    """
    if state in TERMINAL:
        return 1.0
    if state is not JobState.RUNNING:
        return 0.0
    part = _fraction(progress)
    if phase == Phase.TRAINING:
        units = cost.steps * part
    elif phase == Phase.SCORING_BASE:
        units = float(cost.steps)
    elif phase in (Phase.SCORING_TUNED, Phase.FITTING):
        unit = progress["unit"] if progress else ""
        units = cost.steps + PASS_STEPS * _passes(part * cost.passes, unit)
    else:
        units = 0.0
    return min(1.0, units / cost.units)


def share_done(runs: Sequence[Run]) -> float:
    """Of the whole sweep's work, runs weighted by their cost."""
    whole = math.fsum(run.cost.units for run in runs)
    return min(1.0, math.fsum(run.cost.units * run.done for run in runs) / whole) if whole else 1.0


def eta_seconds(runs: Sequence[Run]) -> float | None:
    """Seconds until the last run ends, if as many workers go on as are at it now.

    None while no run tells the pace, or while none is being run. The pace is that of the runs that
    succeeded and of those that run, first attempts only: others stood still in between. Waiting
    runs go, in order, to whichever worker is free first, and begin with a start-up.
    """
    left = [run for run in runs if run.state not in TERMINAL]
    if not left:
        return 0.0
    pace = _pace(runs)
    running = [run for run in left if run.state is JobState.RUNNING]
    if pace is None or not running:
        return None
    start_up, per_unit = pace
    workers = [_left(run, start_up) + per_unit * run.cost.units * (1 - run.done) for run in running]
    heapq.heapify(workers)
    for run in left:
        if run.state is not JobState.RUNNING:
            whole = start_up + per_unit * run.cost.units
            heapq.heapreplace(workers, workers[0] + whole)
    return max(workers)


def _left(run: Run, start_up: float) -> float:
    """Of a running run's start-up."""
    return max(0.0, start_up - (run.seconds or 0.0)) if run.done == 0 else 0.0


def _pace(runs: Sequence[Run]) -> tuple[float, float] | None:
    """Mean seconds of a start-up, and seconds per unit of work after it."""
    start_ups, seconds, units = [], [], []
    for run in runs:
        told = run.seconds is not None and run.start_up is not None and run.done >= TELLING
        if told and run.attempt == 1 and run.state in (JobState.SUCCEEDED, JobState.RUNNING):
            start_up = min(max(0.0, run.start_up or 0.0), max(0.0, run.seconds or 0.0))
            start_ups.append(start_up)
            seconds.append(max(0.0, run.seconds or 0.0) - start_up)
            units.append(run.cost.units * run.done)
    if not units:
        return None
    return math.fsum(start_ups) / len(start_ups), math.fsum(seconds) / math.fsum(units)


def _fraction(progress: Mapping[str, Any] | None) -> float:
    if not progress or not progress["total"]:
        return 0.0
    return min(1.0, max(0.0, float(progress["done"]) / float(progress["total"])))


def _passes(passes: float, unit: str) -> float:
    """Passes behind it: in each, windows are the first half and rows the second."""
    if passes == 0:
        return 0.0
    whole = math.ceil(passes) - 1
    half = 0.5 * (passes - whole)
    return whole + half + (0.5 if unit == "rows" else 0.0)
