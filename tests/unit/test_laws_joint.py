"""The joint law: known truth is found again, exactly or within its own intervals."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import curve_fit

from service.laws import LawError, LawFit, Point, fit, predict
from service.laws.forgetting import NEWS, OPENORCA, PaperLaw
from service.laws.quantities import Floats
from tests.unit.paper_grid import FEW_STEPS, grid

BOTH = pytest.mark.parametrize("law", [OPENORCA, NEWS], ids=["OpenOrca", "News"])


def predicted(law: LawFit, points: Sequence[Point]) -> Floats:
    asked = [predict(law, trainable_params=p.trainable_params, step=p.step) for p in points]
    return np.array([prediction.value for prediction in asked])


@BOTH
@pytest.mark.parametrize("steps", [FEW_STEPS, (50, 100, 190, 260)])
def test_the_papers_law_is_found_from_its_grid(law: PaperLaw, steps: tuple[int, ...]) -> None:
    found = fit(grid(law, steps=steps))
    truth = grid(law)
    assert np.abs(predicted(found, truth) - [p.ce_soft for p in truth]).max() < 1e-6
    for name, value in law.joint().items():
        assert found.coefficients[name].value == pytest.approx(value, rel=1e-4)
    assert found.warnings == ()


@BOTH
def test_an_unseen_rank_is_predicted(law: PaperLaw) -> None:
    """Rank 256 left out, noise of 0.004 nats: the worst step is mostly off by as little."""
    truth = grid(law, ranks=(256,))
    worst = []
    for seed in range(8):
        seen = grid(law, ranks=(8, 16, 32, 64, 128), steps=FEW_STEPS, noise_sd=0.004, seed=seed)
        found = fit(seen)
        worst.append(np.abs(predicted(found, truth) - [p.ce_soft for p in truth]).max())
    assert np.median(worst) < 0.005
    assert max(worst) < 0.012
    assert predict(found, rank=256, step=100).extrapolating


def test_intervals_cover_the_truth() -> None:
    """Runs that drift as a whole: 95 % intervals hold the curve, and a new run's points."""
    curve, new_run = [], []
    for seed in range(20):
        noise = {"noise_sd": 0.002, "run_sd": 0.004}
        found = fit(grid(OPENORCA, steps=FEW_STEPS, seed=seed, **noise))
        new = grid(OPENORCA, steps=FEW_STEPS, seed=1000 + seed, **noise)
        for true, drawn in zip(grid(OPENORCA, steps=FEW_STEPS), new, strict=True):
            asked = predict(found, trainable_params=true.trainable_params, step=true.step)
            assert asked.ci95 is not None
            assert asked.pi95 is not None
            assert true.ce_soft is not None
            assert drawn.ce_soft is not None
            curve.append(asked.ci95[0] <= true.ce_soft <= asked.ci95[1])
            new_run.append(asked.pi95[0] <= drawn.ce_soft <= asked.pi95[1])
    assert 0.88 <= np.mean(curve) <= 0.995
    assert 0.90 <= np.mean(new_run) <= 0.995


@pytest.mark.parametrize("seed", [1, 2])
def test_more_starts_change_nothing(seed: int) -> None:
    points = grid(NEWS, steps=FEW_STEPS, noise_sd=0.006, seed=seed)
    once = predicted(fit(points), points)
    twice = predicted(fit(points, n_starts=128), points)
    elsewhere = predicted(fit(points, seed=99), points)
    assert np.abs(twice / once - 1).max() < 1e-3
    assert np.abs(elsewhere / once - 1).max() < 1e-3


@pytest.mark.parametrize("law", [OPENORCA, NEWS])
def test_scipys_curve_fit_finds_nothing_cheaper(law: PaperLaw) -> None:
    """An independent search of the wire form, 5 random starts, the same bounds and loss."""
    points = grid(law, steps=FEW_STEPS, noise_sd=0.004, seed=8)
    found = fit(points)
    scale = found.robust_scale
    assert scale is not None
    p = np.array([point.trainable_params / 1e8 for point in points])
    n = np.array([point.step / 100 for point in points])
    y = np.array([point.ce_soft for point in points])

    def joint(_: Floats, a: float, al: float, b: float, be: float, r: float, s: float) -> Floats:
        inner = np.exp(a) * p ** -np.exp(al) + np.exp(b) * n ** -np.exp(be)
        return np.asarray(-(inner ** np.exp(r)) + s)

    rng = np.random.default_rng(0)
    low = np.array([-30.0, np.log(1e-4), -30.0, np.log(1e-4), np.log(0.1), -5.0])
    high = np.array([10.0, np.log(5.0), 10.0, np.log(5.0), np.log(50.0), 5.0])
    costs = []
    for _ in range(5):
        _, _, info, _, _ = curve_fit(
            joint,
            p,
            y,
            p0=[*rng.uniform([-2, -4, -2, -4, -1], [0, 0, 0, 0, 2]), 1.0],
            bounds=(low, high),
            loss="soft_l1",
            f_scale=scale,
            x_scale="jac",
            max_nfev=3000,
            full_output=True,
        )
        costs.append(scale**2 * float(np.sum(np.sqrt(1 + (info["fvec"] / scale) ** 2) - 1)))
    assert min(costs) >= found.cost * (1 - 1e-3)
    assert min(costs) <= found.cost * (1 + 1e-3)  # the rival did search


def test_forgetting_that_falls_has_the_other_sign() -> None:
    found = fit(grid(OPENORCA, steps=FEW_STEPS), metric="ce_hard")
    assert found.coefficients["sign"].value == 1.0
    assert any(line.startswith("falling:") for line in found.warnings)
    truth = grid(OPENORCA)
    assert np.abs(predicted(found, truth) - [p.ce_hard for p in truth]).max() < 1e-6


def test_one_bad_point_hardly_bends_the_robust_law() -> None:
    clean = grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.002, seed=1)
    bad = [replace(point, ce_soft=1.4) if i == 14 else point for i, point in enumerate(clean)]
    truth = np.array([point.ce_soft for point in grid(OPENORCA, steps=FEW_STEPS)])
    robust = np.abs(predicted(fit(bad), clean) - truth).max()
    plain = np.abs(predicted(fit(bad, loss="squares"), clean) - truth).max()
    assert robust < 0.01
    assert plain > 5 * robust


def test_noise_makes_exponents_unidentifiable_and_says_so() -> None:
    found = fit(grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.004, seed=2))
    assert found.r2 > 0.98
    assert not found.coefficients["alpha"].identifiable
    assert not found.coefficients["rho"].identifiable
    assert any("alpha" in line for line in found.warnings if line.startswith("not_identifiable:"))
    for coefficient in (found.coefficients[name] for name in ("A", "alpha", "B", "beta", "rho")):
        assert coefficient.ci95 is not None
        assert coefficient.ci95[0] <= coefficient.value * (1 + 1e-9)
        assert coefficient.value <= coefficient.ci95[1] * (1 + 1e-9)


def test_params_and_steps_that_move_together_are_said() -> None:
    pairs = list(zip((4, 8, 16, 32, 64, 96, 128, 256), range(50, 210, 20), strict=True))
    points = [grid(NEWS, ranks=(rank,), steps=(step,), noise_sd=1e-3)[0] for rank, step in pairs]
    found = fit(points)
    assert any(line.startswith("collinear:") for line in found.warnings)
    assert any(line.startswith("few_points:") for line in found.warnings)


def test_one_run_gives_a_law_without_intervals() -> None:
    points = [replace(p, run="all") for p in grid(NEWS, steps=FEW_STEPS, noise_sd=1e-3)]
    found = fit(points)
    assert found.n_runs == 1
    assert all(c.ci95 is None for c in found.coefficients.values())
    assert found.warnings[0].startswith("few_runs: 1 of 3")
    assert predict(found, rank=8, step=100).pi95 is None


def test_many_runs_are_left_out_in_groups() -> None:
    points = [
        point
        for seed in range(10)
        for point in grid(NEWS, ranks=(8, 16, 64, 256), steps=FEW_STEPS, noise_sd=3e-3, seed=seed)
    ]
    found = fit(points)
    assert (found.n_runs, len(found.replicates)) == (40, 32)
    truth = grid(NEWS, steps=FEW_STEPS)
    assert np.abs(predicted(found, truth) - [p.ce_soft for p in truth]).max() < 0.003


def test_json_holds_the_law_exactly() -> None:
    found = fit(grid(NEWS, steps=FEW_STEPS, noise_sd=0.003))
    back = LawFit.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert back == found
    assert predict(back, rank=64, step=90) == predict(found, rank=64, step=90)
    with pytest.raises(LawError, match="not a stored law"):
        LawFit.from_json({"form": "joint"})
