"""Asking a law: what it takes, what it refuses, and when it extrapolates."""

import math
from typing import Any

import pytest

from service.laws import BadQuery, LawFit, predict
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA
from tests.unit.paper_grid import FEW_STEPS, fit_whole, grid

POINTS = grid(OPENORCA, ranks=(8, 16, 32, 64), steps=FEW_STEPS, noise_sd=0.003)


@pytest.fixture(scope="module")
def joint() -> LawFit:
    return fit_whole(POINTS)


@pytest.fixture(scope="module")
def linear() -> LawFit:
    return fit_whole(POINTS, "linear")


def test_rank_stands_for_its_parameters(joint: LawFit) -> None:
    by_rank = predict(joint, rank=16, step=100)
    assert by_rank == predict(joint, trainable_params=16 * LLAMA_2_7B_PARAMS_PER_RANK, step=100)
    params = 16 * LLAMA_2_7B_PARAMS_PER_RANK
    assert by_rank == predict(joint, rank=16, trainable_params=params, step=100)
    assert not by_rank.extrapolating


@pytest.mark.parametrize(
    ("rank", "step", "params_away", "steps_away"),
    [
        (8, 50, 0, 0),
        (64, 260, 0, 0),
        (512, 260, 1, 0),
        (4, 50, 1 / 3, 0),
        (16, 260 * 5.2, 0, 1),
    ],
)
def test_distance_in_widths_of_the_domain(
    joint: LawFit, rank: int, step: float, params_away: float, steps_away: float
) -> None:
    asked = predict(joint, rank=rank, step=step)
    assert asked.distances["trainable_params"] == pytest.approx(params_away)
    assert asked.distances["step"] == pytest.approx(steps_away)
    assert asked.extrapolating is bool(params_away or steps_away)
    said = [line for line in asked.warnings if line.startswith("extrapolating:")]
    assert len(said) == bool(params_away) + bool(steps_away)
    # Once, however many axes: no interval knows whether the form holds out there.
    beyond = [line for line in asked.warnings if line.startswith("beyond_form:")]
    assert len(beyond) == asked.extrapolating


def test_the_line_extrapolates_in_loss(linear: LawFit) -> None:
    low, high = linear.domain.ft_loss
    assert not predict(linear, ft_loss=(low + high) / 2).extrapolating
    far = predict(linear, ft_loss=high + 2 * (high - low))
    assert far.distances["ft_loss"] == pytest.approx(2)
    assert far.warnings[0].endswith("far")
    assert far.warnings[1].startswith("beyond_form:")


def test_intervals_nest_and_widen_outside(joint: LawFit) -> None:
    def width(interval: tuple[float, float] | None) -> float:
        assert interval is not None
        return interval[1] - interval[0]

    inside, outside = predict(joint, rank=16, step=100), predict(joint, rank=4096, step=5000)
    assert width(inside.ci95) < width(inside.pi95)
    assert width(outside.ci95) > 3 * width(inside.ci95)
    assert inside.ci95 is not None
    assert sum(inside.ci95) / 2 == pytest.approx(inside.value)


def test_an_impossible_answer_is_marked(linear: LawFit) -> None:
    asked = predict(linear, ft_loss=50.0)
    assert asked.value < 0
    assert any(line.startswith("impossible:") for line in asked.warnings)


def test_the_edge_of_the_world_is_still_finite(joint: LawFit) -> None:
    for params, step in ((1, 1), (1, 10**15), (10**15, 1), (10**15, 10**15)):
        asked = predict(joint, trainable_params=params, step=step)
        assert asked.ci95 is not None
        assert all(math.isfinite(x) for x in (asked.value, *asked.ci95))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "trainable_params"),
        ({"step": 100}, "trainable_params"),
        ({"rank": 8}, "step"),
        ({"rank": 8, "step": 0}, "step"),
        ({"rank": 8, "step": math.nan}, "step"),
        ({"rank": 8, "step": 100, "ft_loss": 1.0}, "ft_loss"),
        ({"rank": 8, "trainable_params": 7, "step": 100}, "rank"),
        ({"trainable_params": 10**16, "step": 100}, "trainable_params"),
    ],
)
def test_what_the_joint_law_refuses(joint: LawFit, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(BadQuery) as caught:
        predict(joint, **asked)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "ft_loss"),
        ({"ft_loss": -1.0}, "ft_loss"),
        ({"ft_loss": math.inf}, "ft_loss"),
        ({"ft_loss": 1.0, "rank": 8}, "rank"),
        ({"ft_loss": 1.0, "step": 8}, "step"),
        ({"ft_loss": 1.0, "trainable_params": 8}, "trainable_params"),
    ],
)
def test_what_the_line_refuses(linear: LawFit, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(BadQuery) as caught:
        predict(linear, **asked)
    assert caught.value.field == field


def test_ranks_without_a_common_size_cannot_be_asked(joint: LawFit) -> None:
    body = joint.to_json() | {"params_per_rank": None}
    with pytest.raises(BadQuery, match="do not agree") as caught:
        predict(LawFit.from_json(body), rank=8, step=100)
    assert caught.value.field == "rank"
