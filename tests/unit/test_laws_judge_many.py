"""Judging very many points: every fold is a search, so their number is bounded, and said."""

import numpy as np

from service.laws import heldout
from service.laws.judge import judge
from service.laws.measured import MAX_POINTS, MAX_RUNS, measured, thinned
from tests.unit.judged_points import STEPS, paper, study

MANY = study(paper, n_seeds=4)


def test_of_many_runs_every_point_is_held_out_once_by_few_folds() -> None:
    known = measured(MANY, "ce_soft", 0)
    assert len(known.runs) == 24
    parts = heldout.folds(known)["run"]
    assert len(parts) == heldout.MAX_FOLDS == 20
    assert np.all(np.sum([part.test for part in parts], axis=0) == 1)
    assert len({part.name for part in parts}) == 20
    for part in parts:
        assert len(set(known.params[part.test])) == len(set(known.run[part.test]))  # other ranks


def test_of_many_ranks_few_are_left_out_with_both_inner_ends() -> None:
    known = measured(study(paper, n_seeds=1, ranks=range(1, 31)), "ce_soft", 0)
    inner = [part.name for part in heldout.folds(known)["inner_rank"]]
    assert (len(set(inner)), inner[0], inner[-1]) == (20, "rank 2", "rank 29")


def test_a_part_of_very_many_points_is_judged_and_says_so() -> None:
    steps = [int(step) for step in np.linspace(50, 260, 60)]
    points = study(paper, n_seeds=3, steps=steps)
    known = thinned(measured(points, "ce_soft", 0))
    assert len(points) == 1080
    assert MAX_POINTS - 18 <= len(known.value) <= MAX_POINTS
    for run in known.runs:
        kept = known.step[known.run == run]
        assert (kept.min(), kept.max()) == (50, 260)
    first, *_ = judge(points, metric="ce_soft", burn_in=0).notices
    assert first == (
        f"thinned: judged on {len(known.value):,} of 1,080 points, 18 of 18 runs; "
        "the law is fitted to all"
    )


def test_very_many_runs_are_thinned_over_all_ranks() -> None:
    known = thinned(measured(study(paper, n_seeds=50, steps=STEPS[:3]), "ce_soft", 0))
    assert len(known.runs) == MAX_RUNS
    assert len(set(known.params)) == 6


def test_what_is_not_very_many_is_judged_whole() -> None:
    known = measured(MANY, "ce_soft", 0)
    assert thinned(known) is known
