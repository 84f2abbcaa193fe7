"""Judging: the right law is chosen, the wrong law is noticed, and nothing else moves the answer.

Every notice is asked for where it is true and refused where it is not, so that judging which is
switched off, or cries always, fails.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from service.laws import BadPoints, Point, TooFewPoints
from service.laws.choice import TIE
from service.laws.forgetting import NEWS, OPENORCA
from service.laws.heldout import KINDS
from service.laws.judge import judge
from service.laws.judgement import Judgement
from service.laws.measured import measured
from tests.unit.judged_points import flattening, nothing, paper, study, two_slopes
from tests.unit.paper_grid import grid


def words(judgement: Judgement) -> set[str]:
    return {line.split(":")[0] for line in judgement.notices}


@pytest.fixture(scope="module")
def right() -> Judgement:
    return judge(study(paper), metric="ce_soft", burn_in=0)


def test_points_of_the_joint_law_choose_it(right: Judgement) -> None:
    assert right.choice is not None
    assert right.choice.default == "joint"
    assert right.choice.overall["joint"].behind <= TIE
    for rival in ("last_value", "log_linear", "mean"):
        assert right.choice.overall[rival].behind > TIE
    assert "The joint law is the default" in right.choice.reason
    assert not words(right) & {
        "beaten",
        "noise",
        "saturating",
        "mixed_recipes",
        "run_effects",
        "no_seeds",
    }


@pytest.mark.parametrize("law", [OPENORCA, NEWS])
def test_noise_of_the_papers_size_leaves_joint_the_default(law: type[OPENORCA]) -> None:
    points = grid(law, steps=range(50, 261, 10), noise_sd=0.012, seed=3)
    found = judge(points, metric="ce_soft", burn_in=0)
    assert found.choice is not None
    assert found.choice.default == "joint"
    # 0.8 sd is the mean absolute value of the noise itself, which nobody can predict.
    for kind in KINDS:
        held_out = found.held_out[kind]
        assert held_out is not None
        joint = held_out.errors["joint"]
        assert joint is not None
        assert 0.5 * 0.012 < joint.mae < 1.5 * 0.8 * 0.012
    assert "no_seeds" in words(found)


def test_a_saturating_exponential_is_noticed(right: Judgement) -> None:
    found = judge(study(flattening), metric="ce_soft", burn_in=0)
    assert "saturating" in words(found)
    assert found.aicc is not None
    assert right.aicc is not None
    gaps = [j.aicc.by_contender["joint"].points for j in (found, right) if j.aicc is not None]
    assert gaps[0] is not None
    assert gaps[0] > 2.0
    assert gaps[1] == 0.0
    assert found.choice is not None
    assert found.choice.winner == "saturating"
    assert found.choice.beaten_by["linear"] == "saturating"


def test_two_mixed_recipes_are_noticed() -> None:
    points = study(two_slopes, n_seeds=2)
    found = judge(points, metric="ce_soft", burn_in=0)
    assert "mixed_recipes" in words(found)
    line = next(line for line in found.notices if line.startswith("mixed_recipes"))
    odd = {p.run for p in points if (int(p.run[-1]) + (p.rank or 0).bit_length()) % 2}
    named = {p.run for p in points if p.run in line}
    assert named in (odd, {p.run for p in points} - odd)


def test_two_learning_rates_are_noticed() -> None:
    points = [
        replace(p, learning_rate=1e-4 if p.rank in (8, 32) else 3e-4)
        for p in study(paper, n_seeds=1)
    ]
    assert "mixed_recipes" in words(judge(points, metric="ce_soft", burn_in=0))


def test_pure_noise_is_noticed() -> None:
    for seed in range(2):
        points = study(nothing, noise_sd=0.02, n_seeds=1, seed=seed)
        found = judge(points, metric="ce_soft", burn_in=0)
        assert "noise" in words(found)
        assert found.choice is not None
        assert found.choice.default is None
        r2 = found.r2["joint"]
        assert r2 is not None
        assert r2.unseen_runs is not None
        assert r2.unseen_runs < 0.2


def test_the_order_of_points_changes_nothing(right: Judgement) -> None:
    points = study(paper)
    shuffled = [points[i] for i in np.random.default_rng(0).permutation(len(points))]
    assert judge(shuffled, metric="ce_soft", burn_in=0) == right


def test_a_constant_of_the_metric_changes_no_error(right: Judgement) -> None:
    lifted = [replace(p, ce_soft=(p.ce_soft or 0.0) + 2.0) for p in study(paper)]
    other = judge(lifted, metric="ce_soft", burn_in=0)
    for kind in KINDS:
        one, two = right.held_out[kind], other.held_out[kind]
        assert one is not None
        assert two is not None
        for name, missed in one.errors.items():
            moved = two.errors[name]
            assert missed is not None
            assert moved is not None
            assert moved.mae == pytest.approx(missed.mae, abs=2e-5)
            assert moved.rmse == pytest.approx(missed.rmse, abs=2e-5)
    assert other.unit is not None
    assert right.unit is not None
    assert other.unit.nats == pytest.approx(right.unit.nats, rel=1e-9)
    assert other.choice is not None
    assert right.choice is not None
    assert other.choice.default == right.choice.default
    assert words(other) == words(right)


def test_the_answer_is_plain_json(right: Judgement) -> None:
    body = right.to_json()
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert body["choice"]["default"] == "joint"
    assert set(body["held_out"]) == set(KINDS)


def test_the_burn_in_is_left_out() -> None:
    points = study(paper, n_seeds=1, steps=(10, 51, 52, 60, 100, 150, 200, 260))
    assert len(measured(points, "ce_soft", None).value) == 6 * 6  # 10 and 51: below a fifth of 260
    assert len(measured(points, "ce_soft", 60).value) == 6 * 5
    assert len(measured(points, "ce_soft", 0).value) == 6 * 8
    assert judge(points, metric="ce_soft").n_points == 6 * 6


def few(n_ranks: int, n_steps: int, n_seeds: int) -> list[Point]:
    ranks, steps = (8, 16, 32)[:n_ranks], (50, 100, 150, 260)[:n_steps]
    return study(paper, ranks=ranks, steps=steps, n_seeds=n_seeds)


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 4])
@pytest.mark.parametrize("n_seeds", [1, 2])
def test_too_little_is_told_part_by_part(n_ranks: int, n_steps: int, n_seeds: int) -> None:
    found = judge(few(n_ranks, n_steps, n_seeds), metric="ce_soft", burn_in=0)
    json.dumps(found.to_json(), allow_nan=False)
    for name, part in (
        ("unit", found.unit),
        ("choice", found.choice),
        ("line", found.line),
        ("sufficiency", found.sufficiency),
        ("aicc", found.aicc),
        ("families", found.families),
        *((f"held_out.{kind}", found.held_out[kind]) for kind in KINDS),
    ):
        assert (part is None) == (name in found.missing), name
    assert (found.held_out["inner_rank"] is None) == (n_ranks < 3)
    assert (found.held_out["edge_rank"] is None) == (n_ranks < 2)
    assert (found.held_out["later_steps"] is None) == (n_steps < 2)
    assert (found.unit is not None and found.unit.source == "seeds") == (n_seeds > 1)


def test_a_contender_that_cannot_be_fitted_says_why() -> None:
    found = judge(few(3, 4, 2), metric="ce_soft", burn_in=0)
    inner = found.held_out["inner_rank"]
    assert inner is not None
    assert inner.errors["joint"] is None
    assert "3 values of trainable_params" in inner.refused["joint"]
    assert inner.refused["joint"].startswith("without rank 16")


def test_constant_forgetting_is_no_law() -> None:
    points = [replace(p, ce_soft=0.8) for p in study(paper)]
    found = judge(points, metric="ce_soft", burn_in=0)
    assert found.choice is None
    assert "choice" in found.missing
    json.dumps(found.to_json(), allow_nan=False)


def test_constant_loss_leaves_the_joint_law_alone() -> None:
    found = judge([replace(p, ft_loss=2.0) for p in study(paper)], metric="ce_soft", burn_in=0)
    assert found.choice is not None
    assert found.choice.default == "joint"
    assert "linear" not in found.choice.overall
    assert {"law.linear", "line", "sufficiency"} <= set(found.missing)


def test_the_tuning_law_has_no_line() -> None:
    found = judge(study(paper, n_seeds=1, ft_noise_sd=0.004), metric="ft_loss", burn_in=0)
    assert found.choice is not None
    assert found.choice.default == "joint"
    assert set(found.r2) == {"joint"}
    assert {"line", "sufficiency"} <= set(found.missing)


def test_what_cannot_be_true_is_refused() -> None:
    points = study(paper)
    with pytest.raises(BadPoints):
        judge([*points, points[0]], metric="ce_soft")
    with pytest.raises(BadPoints):
        judge([replace(points[0], ce_soft=float("nan")), *points[1:]], metric="ce_soft")
    with pytest.raises(TooFewPoints):
        judge(points, metric="ce_soft", burn_in=1000)
    with pytest.raises(TooFewPoints):
        judge([], metric="ce_soft")
