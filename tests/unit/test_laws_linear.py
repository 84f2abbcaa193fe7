"""The line between fine-tuning loss and forgetting."""

import json
from dataclasses import replace

import numpy as np
import pytest

from service.laws import LawFit, Point, predict
from service.laws.forgetting import NEWS, OPENORCA, PaperLaw
from tests.unit.paper_grid import FEW_STEPS, fit_whole, grid

BOTH = pytest.mark.parametrize("law", [OPENORCA, NEWS], ids=["OpenOrca", "News"])


def on_the_line(law: PaperLaw) -> list[Point]:
    return [
        replace(point, ce_soft=law.line(point.ft_loss))
        for point in grid(law, steps=range(50, 261, 10))
    ]


@BOTH
@pytest.mark.parametrize("loss", ["soft_l1", "squares"])
def test_the_papers_line_is_found(law: PaperLaw, loss: str) -> None:
    found = fit_whole(
        on_the_line(law), "linear", loss="squares" if loss == "squares" else "soft_l1"
    )
    assert found.coefficients["c_f_ft"].value == pytest.approx(law.c_f_ft, rel=1e-3)
    assert found.coefficients["s_f_ft"].value == pytest.approx(law.s_f_ft, rel=1e-3)
    assert found.r2 == pytest.approx(1.0, abs=1e-9)
    assert all(c.identifiable for c in found.coefficients.values())
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("law", "every", "slope"),
    [(OPENORCA, 15, 1.783), (NEWS, 15, 1.057), (OPENORCA, 10, 1.782), (NEWS, 10, 1.059)],
)
def test_the_joint_law_does_not_lie_on_its_own_line(
    law: PaperLaw, every: int, slope: float
) -> None:
    """Least squares through the joint law's points; the slope hangs on which steps are there."""
    points = grid(law, steps=range(50, 261, every))
    found = fit_whole(points, "linear", loss="squares")
    assert found.coefficients["c_f_ft"].value == pytest.approx(slope, abs=6e-4)
    by_numpy = np.polyfit([p.ft_loss for p in points], [p.ce_soft or 0.0 for p in points], 1)
    assert found.coefficients["c_f_ft"].value == pytest.approx(-by_numpy[0], rel=1e-9)


def test_one_bad_point_hardly_bends_the_robust_line() -> None:
    clean = grid(OPENORCA, noise_sd=0.004, seed=3)
    bad = [replace(point, ce_soft=3.0) if i == 5 else point for i, point in enumerate(clean)]
    truth = fit_whole(clean, "linear", loss="squares").coefficients["c_f_ft"].value
    robust = fit_whole(bad, "linear").coefficients["c_f_ft"].value
    plain = fit_whole(bad, "linear", loss="squares").coefficients["c_f_ft"].value
    assert robust == pytest.approx(truth, rel=0.01)
    assert abs(plain - truth) > 10 * abs(robust - truth)


def test_a_slope_lost_in_noise_is_not_identifiable() -> None:
    points = [
        replace(point, ft_loss=2.0 + 0.01 * (i % 7))
        for i, point in enumerate(grid(OPENORCA, ranks=(8, 16, 32), steps=FEW_STEPS))
    ]
    found = fit_whole(points, "linear")
    assert not found.coefficients["c_f_ft"].identifiable
    low, high = found.coefficients["c_f_ft"].ci95 or (1.0, 1.0)
    assert low < 0 < high
    assert any(line.startswith("not_identifiable: c_f_ft, s_f_ft") for line in found.warnings)


def test_two_runs_give_a_line_without_intervals() -> None:
    found = fit_whole(grid(OPENORCA, ranks=(8, 64)), "linear")
    assert all(c.ci95 is None for c in found.coefficients.values())
    assert found.warnings[0].startswith("few_runs: 2 of 3")
    asked = predict(found, ft_loss=0.7)
    assert (asked.ci95, asked.pi95) == (None, None)


def test_forgetting_that_rises_with_the_loss_is_said() -> None:
    found = fit_whole(grid(OPENORCA), "linear", metric="ce_hard")
    assert found.coefficients["c_f_ft"].value < 0
    assert any(line.startswith("rising:") for line in found.warnings)


def test_json_holds_the_law_exactly() -> None:
    found = fit_whole(grid(NEWS, noise_sd=0.003), "linear")
    text = json.dumps(found.to_json(), allow_nan=False)
    assert LawFit.from_json(json.loads(text)) == found
