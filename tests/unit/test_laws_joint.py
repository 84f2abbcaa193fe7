"""The joint law: known truth is found again, exactly or within its own intervals."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import curve_fit

from service.laws import LawError, LawFit, Point, curve, predict
from service.laws.forgetting import NEWS, OPENORCA, PaperLaw
from service.laws.predict import expected
from service.laws.quantities import Floats
from tests.unit.paper_grid import FEW_STEPS, fit_whole, grid

BOTH = pytest.mark.parametrize("law", [OPENORCA, NEWS], ids=["OpenOrca", "News"])


def predicted(law: LawFit, points: Sequence[Point]) -> Floats:
    asked = [predict(law, trainable_params=p.trainable_params, step=p.step) for p in points]
    return np.array([prediction.value for prediction in asked])


@BOTH
@pytest.mark.parametrize("steps", [range(50, 261, 10), FEW_STEPS, (50, 100, 190, 260)])
def test_the_papers_law_is_found_from_its_grid(law: PaperLaw, steps: Sequence[int]) -> None:
    """Noise-free points give the curve back at every step of every rank."""
    found = fit_whole(grid(law, steps=steps))
    truth = grid(law, steps=range(50, 261))
    params, step = [p.trainable_params for p in truth], [p.step for p in truth]
    drawn = expected(found, trainable_params=params, step=step)
    assert np.abs(drawn - [p.ce_soft for p in truth]).max() < 1e-6
    assert drawn[::97] == pytest.approx(predicted(found, truth[::97]))
    for name, value in law.joint().items():
        assert found.coefficients[name].value == pytest.approx(value, rel=1e-4)
    assert found.warnings == ()


@BOTH
def test_a_rank_that_was_not_run_is_predicted(law: PaperLaw) -> None:
    """Rank 256 left out, noise of 0.004 nats: the worst step is mostly off by as little."""
    truth = grid(law, ranks=(256,))
    worst = []
    for seed in range(8):
        seen = grid(law, ranks=(8, 16, 32, 64, 128), steps=FEW_STEPS, noise_sd=0.004, seed=seed)
        found = fit_whole(seen)
        worst.append(np.abs(predicted(found, truth) - [p.ce_soft for p in truth]).max())
    assert np.median(worst) < 0.005
    assert max(worst) < 0.012
    assert predict(found, rank=256, step=100).extrapolating


def small_sweep(ranks: Sequence[int], seed: int) -> list[Point]:
    """Like sweeps of the tiny base: rho is 1, few runs, an offset per run."""
    rng = np.random.default_rng(seed)
    points = []
    for rank, again in itertools.product(ranks, range(2)):
        offset = 0.013 * rng.normal()
        for step in (30, 41, 56, 76, 103, 140):
            value = 0.75 - 0.9 * (11_000 * rank) ** -0.12 - 1.1 * step**-0.35
            points.append(
                Point(
                    run=f"{rank}-{again}",
                    trainable_params=11_000 * rank,
                    step=step,
                    ft_loss=3.3,
                    ce_soft=value + offset + 0.004 * rng.normal() + 1.0,
                )
            )
    return points


@pytest.mark.parametrize(
    "points",
    [
        grid(OPENORCA),
        grid(NEWS, noise_sd=0.006, seed=1),
        grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.009, seed=2),
        grid(NEWS, steps=FEW_STEPS, noise_sd=0.006, run_sd=0.005, seed=3),
        grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.02, run_sd=0.02, seed=4),
        small_sweep((4, 8, 16, 32), seed=5),
        small_sweep((4, 8, 16, 32), seed=6),
        small_sweep((1, 8, 64), seed=7),
    ],
    ids=["exact", "grid", "few", "offsets", "loud", "small", "small again", "three ranks"],
)
def test_more_starts_change_nothing(points: list[Point]) -> None:
    """Twice the starts, and others: below 0.1 %, in the grid and one width of it outside."""
    params = np.array(sorted({point.trainable_params for point in points}), dtype=float)
    steps = np.array(sorted({point.step for point in points}), dtype=float)
    far = [np.append(axis, axis[-1] ** 2 / axis[0]) for axis in (params, steps)]

    def drawn(law: LawFit) -> Floats:
        return curve.evaluate(np.array(law.values), far[0][:, None], far[1])

    once = drawn(fit_whole(points))
    assert np.abs(drawn(fit_whole(points, n_starts=128)) / once - 1).max() < 1e-3
    assert np.abs(drawn(fit_whole(points, seed=99)) / once - 1).max() < 1e-3


@pytest.mark.parametrize("law", [OPENORCA, NEWS])
def test_scipys_curve_fit_finds_nothing_cheaper(law: PaperLaw) -> None:
    """An independent search of the wire form, 5 random starts, the same bounds and loss."""
    points = grid(law, steps=FEW_STEPS, noise_sd=0.004, seed=8)
    found = fit_whole(points)
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
    found = fit_whole(grid(OPENORCA, steps=FEW_STEPS), metric="ce_hard")
    assert found.coefficients["sign"].value == 1.0
    assert any(line.startswith("falling:") for line in found.warnings)
    truth = grid(OPENORCA)
    assert np.abs(predicted(found, truth) - [p.ce_hard for p in truth]).max() < 1e-6


def test_one_bad_point_hardly_bends_the_robust_law() -> None:
    clean = grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.002, seed=1)
    bad = [replace(point, ce_soft=1.4) if i == 14 else point for i, point in enumerate(clean)]
    truth = np.array([point.ce_soft for point in grid(OPENORCA, steps=FEW_STEPS)])
    robust = np.abs(predicted(fit_whole(bad), clean) - truth).max()
    plain = np.abs(predicted(fit_whole(bad, loss="squares"), clean) - truth).max()
    assert robust < 0.01
    assert plain > 5 * robust


def test_noise_makes_exponents_unidentifiable_and_says_so() -> None:
    found = fit_whole(grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.004, seed=2))
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
    found = fit_whole(points)
    assert any(line.startswith("collinear:") for line in found.warnings)
    assert any(line.startswith("few_points:") for line in found.warnings)


def test_one_run_gives_a_law_without_intervals() -> None:
    points = [replace(p, run="all") for p in grid(NEWS, steps=FEW_STEPS, noise_sd=1e-3)]
    found = fit_whole(points)
    assert found.n_runs == 1
    assert all(c.ci95 is None for c in found.coefficients.values())
    assert found.warnings[0].startswith("few_runs: 1 of 4")
    assert predict(found, rank=8, step=100).pi95 is None


def test_residuals_are_what_the_law_leaves() -> None:
    points = grid(NEWS, steps=FEW_STEPS, noise_sd=0.003)
    found = fit_whole(points[::-1])
    left = found.residuals
    measured = {(p.run, p.trainable_params, p.step): p.ce_soft for p in points}
    for key, value in zip(
        zip(left.run, left.trainable_params, left.step, strict=True), left.value, strict=True
    ):
        asked = predict(found, trainable_params=key[1], step=key[2])
        assert value == pytest.approx((measured.pop(key) or 0.0) - asked.value, abs=1e-9)
    assert not measured
    assert np.sqrt(np.mean(np.square(left.value))) == pytest.approx(found.rmse)


def test_the_tuning_law_falls_and_nobody_warns() -> None:
    """The paper's L_ft in the same form: sign +1, bad news for forgetting only."""
    points = grid(OPENORCA)
    found = fit_whole(points, metric="ft_loss")
    assert found.coefficients["sign"].value == 1.0
    assert found.warnings == ()
    assert np.abs(predicted(found, points) - [p.ft_loss for p in points]).max() < 1e-6
    turned = fit_whole([replace(p, ft_loss=3.0 - p.ft_loss) for p in points], metric="ft_loss")
    assert any(line.startswith("rising:") for line in turned.warnings)


def test_json_holds_the_law_exactly() -> None:
    found = fit_whole(grid(NEWS, steps=FEW_STEPS, noise_sd=0.003))
    back = LawFit.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert back == found
    assert predict(back, rank=64, step=90) == predict(found, rank=64, step=90)
    with pytest.raises(LawError, match="not a stored law"):
        LawFit.from_json({"form": "joint"})
