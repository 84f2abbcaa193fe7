"""Law residuals: planted offsets come back, the run itself has no say, few runs are refused."""

from dataclasses import replace

import numpy as np
import pytest

from service.laws.fit import fit
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA
from service.laws.predict import predict
from service.laws.quantities import LawError, Point, TooFewPoints
from service.laws.residual import EDGE, compare, last, others, residual, z_score

SLOPE, INTERCEPT = -0.6, 1.9
STEPS = (20, 40, 80, 160)


def study(
    n_runs: int = 6, *, run_sd: float = 0.0, noise_sd: float = 0.0, seed: int = 0
) -> list[Point]:
    """Points about kl = 1.9 - 0.6 L_ft; each run has an offset of its own, each point another."""
    rng = np.random.default_rng(seed)
    points = []
    for run in range(n_runs):
        offset = rng.normal(0, run_sd)
        for step in STEPS:
            loss = 2.2 + 0.9 * step**-0.4 + 0.05 * run / n_runs
            kl = INTERCEPT + SLOPE * loss + offset + rng.normal(0, noise_sd)
            points.append(Point(f"r{run}", 1000 * 2**run, step, loss, kl=kl, rank=2**run))
    return points


def moved(points: list[Point], run: str, by: float, *, step: int | None = None) -> list[Point]:
    return [
        replace(p, kl=p.kl + by) if p.run == run and step in (None, p.step) else p  # type: ignore[operator]
        for p in points
    ]


def test_a_planted_offset_is_the_residual() -> None:
    found = residual(moved(study(), "r2", 0.031), "r2")
    own = last(study(), "r2")
    assert found.expected == pytest.approx(INTERCEPT + SLOPE * own.ft_loss, abs=1e-9)
    assert found.residual == pytest.approx(0.031, abs=1e-9)
    assert (found.form, found.metric, found.run, found.step) == ("linear", "kl", "r2", 160)
    assert (found.n_runs, found.extrapolating) == (5, False)


def test_a_run_exactly_on_a_law_without_noise_has_no_residual_to_speak_of() -> None:
    found = residual(study(), "r3")
    assert abs(found.residual) < 1e-9
    assert abs(found.z) < 0.01


def test_nothing_of_the_run_itself_moves_what_is_expected() -> None:
    points = study(run_sd=0.01, noise_sd=0.005)
    plain = residual(points, "r1")
    early = residual(moved(points, "r1", 0.5, step=20), "r1")
    assert early == plain
    late = residual(moved(points, "r1", 0.5, step=160), "r1")
    assert late.expected == plain.expected
    assert late.residual == pytest.approx(plain.residual + 0.5)
    assert late.z > plain.z + 10
    assert residual(moved(points, "r4", 0.5), "r1").expected != plain.expected


def test_the_line_agrees_with_least_squares_over_the_other_runs() -> None:
    points = study(run_sd=0.01, noise_sd=0.005, seed=4)
    kept = [point for point in points if point.run != "r5"]
    law = fit(kept, "linear", metric="kl", loss="squares")
    found = compare(law, last(points, "r5"))
    # The weights of points within a run are the fit's own affair: here all runs are alike.
    used = [p for p in kept if p.step > law_burn_in(law)]
    slope, intercept = np.polyfit([p.ft_loss for p in used], [p.kl for p in used], 1)
    assert found.expected == pytest.approx(intercept + slope * last(points, "r5").ft_loss)


def law_burn_in(law: object) -> float:
    """Steps up to this one were left out, by the fit's own word."""
    first = law.domain.step[0]  # type: ignore[attr-defined]
    return float(first) - 0.5


def test_z_measures_by_the_interval_of_a_new_run() -> None:
    points = study(run_sd=0.02, noise_sd=0.005, seed=2)
    own = last(points, "r0")
    law = fit(others(points, "r0"), "linear", metric="kl")
    at = predict(law, ft_loss=own.ft_loss)
    assert at.pi95 is not None
    low, high = at.pi95
    for measured, z in ((high, EDGE), (low, -EDGE), (at.value, 0.0)):
        assert compare(law, replace(own, kl=measured)).z == pytest.approx(z, abs=1e-6)
    found = residual(points, "r0")
    assert (abs(found.z) > EDGE) == (not low <= found.measured <= high)
    assert found.pi95 == at.pi95
    assert found.ci95 == at.ci95


def test_each_side_has_its_own_measure() -> None:
    assert z_score(2.0, 1.0, (0.5, 3.0)) == pytest.approx(EDGE / 2)
    assert z_score(0.0, 1.0, (0.5, 3.0)) == pytest.approx(-2 * EDGE)
    assert z_score(1.0, 1.0, (1.0, 1.0)) == 0.0


def test_runs_that_differ_make_the_same_residual_less_remarkable() -> None:
    calm = residual(moved(study(noise_sd=0.002, seed=1), "r2", 0.05), "r2")
    wild = residual(moved(study(run_sd=0.05, noise_sd=0.002, seed=1), "r2", 0.05), "r2")
    assert calm.z > 5 * abs(wild.z)


def test_fresh_runs_are_rarely_remarkable_and_bad_ones_mostly() -> None:
    """100 studies of 6 runs: false alarms about as rare as 5 %, five deviations seen."""
    false_alarms = seen = 0
    for seed in range(100):
        points = study(7, run_sd=0.01, noise_sd=0.003, seed=seed)
        false_alarms += abs(residual(points, "r6").z) > EDGE
        seen += residual(moved(points, "r6", 0.08), "r6").z > EDGE
    assert false_alarms <= 15
    assert seen >= 90


def test_the_joint_law_judges_at_the_place_of_the_checkpoint() -> None:
    grid = [
        Point(
            run=f"rank-{rank}",
            rank=rank,
            trainable_params=rank * LLAMA_2_7B_PARAMS_PER_RANK,
            step=step,
            ft_loss=OPENORCA.ft_loss(rank * LLAMA_2_7B_PARAMS_PER_RANK, step),
            ce_soft=OPENORCA.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, step),
            kl=OPENORCA.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, step) - 0.7,
        )
        for rank in (8, 16, 32, 64, 128, 256)
        for step in range(50, 261, 10)
    ]
    found = residual(moved(grid, "rank-32", 0.02), "rank-32", form="joint")
    assert found.residual == pytest.approx(0.02, abs=1e-3)
    assert found.step == 260
    assert not found.extrapolating
    outside = residual(grid, "rank-256", form="joint")
    assert outside.extrapolating
    assert outside.expected == pytest.approx(outside.measured, abs=0.01)


@pytest.mark.parametrize("n_runs", [1, 2, 3])
def test_too_few_other_runs_say_how_many(n_runs: int) -> None:
    with pytest.raises(TooFewPoints, match=f"3 other runs .* there are {n_runs - 1}") as caught:
        residual(study(n_runs), "r0")
    assert caught.value.axis == "run"
    residual(study(4, noise_sd=0.01), "r0")


def test_runs_without_the_metric_do_not_count() -> None:
    points = [replace(p, kl=None) if p.run in ("r1", "r2", "r3") else p for p in study(6)]
    with pytest.raises(TooFewPoints, match="there are 2"):
        residual(points, "r0")
    with pytest.raises(LawError, match="not measured"):
        residual(points, "r1")
    with pytest.raises(LawError, match="no point"):
        residual(study(), "stranger")
