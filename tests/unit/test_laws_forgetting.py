"""The paper's Table 1 gives the values that the paper's curves show."""

import pytest

from service.laws import LawError, predict
from service.laws.forgetting import (
    LLAMA_2_7B_PARAMS_PER_RANK,
    NEWS,
    OPENORCA,
    PAPER_RANKS,
    PAPER_STEPS,
    PaperLaw,
    paper_parameters,
)
from tests.unit.paper_grid import FEW_STEPS, fit_whole, grid

BOTH = pytest.mark.parametrize("law", [OPENORCA, NEWS], ids=["OpenOrca", "News"])


@pytest.mark.parametrize(
    ("law", "rank", "step", "ft_loss", "forgetting"),
    [
        (OPENORCA, 8, 50, 0.768, 0.711),
        (OPENORCA, 8, 260, 0.677, 0.873),
        (OPENORCA, 64, 260, 0.660, 0.903),
        (OPENORCA, 256, 50, 0.713, 0.810),
        (OPENORCA, 256, 260, 0.652, 0.918),
        (NEWS, 8, 50, 2.151, 0.845),
        (NEWS, 256, 260, 1.989, 1.017),
    ],
)
def test_listed_values(
    law: PaperLaw, rank: int, step: int, ft_loss: float, forgetting: float
) -> None:
    params = rank * LLAMA_2_7B_PARAMS_PER_RANK
    assert law.ft_loss(params, step) == pytest.approx(ft_loss, abs=6e-4)
    assert law.forgetting(params, step) == pytest.approx(forgetting, abs=6e-4)


@BOTH
def test_both_routes_to_forgetting_agree(law: PaperLaw) -> None:
    gaps = [
        abs(law.line(law.ft_loss(params, step)) - law.forgetting(params, step))
        for params in (rank * LLAMA_2_7B_PARAMS_PER_RANK for rank in PAPER_RANKS)
        for step in range(PAPER_STEPS[0], PAPER_STEPS[1] + 1)
    ]
    assert max(gaps) < 0.0071
    assert max(gaps) > 0.004  # two printed tables, not one formula twice


@BOTH
def test_six_numbers_draw_the_same_curve(law: PaperLaw) -> None:
    c = law.joint()
    for rank in PAPER_RANKS:
        for step in PAPER_STEPS:
            p = rank * LLAMA_2_7B_PARAMS_PER_RANK
            inner = c["A"] * p ** -c["alpha"] + c["B"] * step ** -c["beta"]
            assert c["sign"] * inner ** c["rho"] + c["shift"] == pytest.approx(
                law.forgetting(p, step), abs=1e-12
            )


@BOTH
def test_a_fit_reads_back_in_the_papers_names(law: PaperLaw) -> None:
    points = grid(law, steps=FEW_STEPS)
    joint, linear = fit_whole(points), fit_whole(points, "linear")
    named = paper_parameters(joint, linear, c_ft=law.c_ft)
    assert named["alpha_f"] == pytest.approx(law.alpha_f, rel=1e-5)
    assert named["beta_f"] == pytest.approx(law.beta_f, rel=1e-5)
    assert named["rho"] == pytest.approx(law.rho, rel=1e-5)
    for c_ft in (law.c_ft, 1.0):
        back = PaperLaw(
            **paper_parameters(joint, linear, c_ft=c_ft), a_ft=1, b_ft=1, alpha_ft=1, beta_ft=1
        )
        for point in points:
            assert back.forgetting(point.trainable_params, point.step) == pytest.approx(
                predict(joint, trainable_params=point.trainable_params, step=point.step).value,
                abs=1e-9,
            )


def test_the_papers_names_need_the_papers_signs() -> None:
    points = grid(OPENORCA, steps=FEW_STEPS)
    joint, linear = fit_whole(points), fit_whole(points, "linear")
    falling = fit_whole(points, metric="ce_hard")
    with pytest.raises(LawError, match="one metric"):
        paper_parameters(falling, linear)
    with pytest.raises(LawError, match="joint and a linear"):
        paper_parameters(linear, joint)
    with pytest.raises(LawError, match="sign -1"):
        paper_parameters(falling, fit_whole(points, "linear", metric="ce_hard"))
