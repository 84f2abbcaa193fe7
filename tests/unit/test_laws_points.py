"""What cannot be fitted is refused with the numbers that decide."""

import math
from dataclasses import replace
from typing import Any

import pytest

from service.laws import BadPoints, LawError, Point, TooFewPoints, fit
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA
from tests.unit.paper_grid import grid

POINTS = grid(OPENORCA, ranks=(8, 16, 32), steps=(50, 100, 200))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ft_loss", math.nan),
        ("ft_loss", math.inf),
        ("ft_loss", -0.1),
        ("ft_loss", 1e5),
        ("ce_soft", math.nan),
        ("ce_soft", -0.01),
        ("ce_soft", None),
        ("kl", -0.01),
        ("trainable_params", 0),
        ("trainable_params", 10**400),
        ("trainable_params", True),
        ("step", 0),
        ("step", 1.5),
        ("rank", 0),
    ],
)
def test_an_impossible_value_is_refused_by_index_and_field(field: str, value: Any) -> None:
    points = list(POINTS)
    points[4] = replace(points[4], **{field: value})
    with pytest.raises(BadPoints, match=f"point 4: {field}") as caught:
        fit(points, "linear", metric="kl" if field == "kl" else "ce_soft")
    assert (caught.value.index, caught.value.field) == (4, field)


def test_kl_may_round_below_zero() -> None:
    points = [replace(point, kl=-1e-7 if i == 0 else 0.01 * i) for i, point in enumerate(POINTS)]
    assert fit(points, "linear", metric="kl").n_points == 9


def test_a_point_given_twice_is_refused() -> None:
    with pytest.raises(BadPoints, match=r"points 2 and 9 are both run 'rank-8-seed-0' at step 200"):
        fit([*POINTS, POINTS[2]], "linear")


def test_a_metric_that_was_not_asked_for_may_be_missing() -> None:
    points = [replace(point, ce_hard=None, kl=None) for point in POINTS]
    assert fit(points, "joint").metric == "ce_soft"


@pytest.mark.parametrize(
    ("points", "form", "axis", "words"),
    [
        ([], "linear", "points", "no point"),
        (POINTS[:2], "linear", "points", "needs 3 points; there are 2 points"),
        (POINTS[:7], "joint", "points", "needs 8 points.*there are 7 points"),
        (
            grid(OPENORCA, ranks=(8, 16), steps=(50, 60, 70, 80)),
            "joint",
            "trainable_params",
            "2 and 4",
        ),
        (grid(OPENORCA, ranks=(8, 16, 32, 64), steps=(50, 60)), "joint", "step", "4 and 2"),
        ([replace(p, ft_loss=1.0) for p in POINTS], "linear", "ft_loss", "no spread in ft_loss"),
        ([replace(p, ce_soft=0.7) for p in POINTS], "linear", "ce_soft", "no spread in ce_soft"),
        ([replace(p, ce_soft=0.7) for p in POINTS], "joint", "ce_soft", "no spread in ce_soft"),
    ],
)
def test_too_little_to_fit(points: list[Point], form: Any, axis: str, words: str) -> None:
    with pytest.raises(TooFewPoints, match=words) as caught:
        fit(points, form)
    assert caught.value.axis == axis


def test_the_burn_in_is_left_out_only_when_asked() -> None:
    points = grid(OPENORCA, ranks=(8, 16, 32), steps=(10, 50, 60, 100, 200))
    assert fit(points).domain.step == (10, 200)
    without = fit(points, burn_in=50)
    assert (without.domain.step, without.n_points) == ((60, 200), 9)
    with pytest.raises(TooFewPoints, match="no point left of 15 after a burn-in of 300"):
        fit(points, burn_in=300)


def test_unknown_names_are_refused() -> None:
    unknown: Any = "cubic"
    for arguments in ({"form": unknown}, {"metric": unknown}, {"loss": unknown}):
        with pytest.raises(LawError, match="cubic"):
            fit(POINTS, **arguments)


def test_parameters_per_rank_where_points_agree() -> None:
    assert fit(POINTS).params_per_rank == LLAMA_2_7B_PARAMS_PER_RANK
    odd = [*POINTS[:-1], replace(POINTS[-1], rank=33)]
    assert fit(odd).params_per_rank is None
    unknown = [replace(point, rank=None) for point in POINTS]
    assert fit(unknown).params_per_rank is None
    assert fit(unknown).domain.ranks == ()
