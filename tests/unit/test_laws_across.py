"""Laws across learning rates: the known exposure is found, and what cannot be is refused."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from service.laws import BadPoints, BadQuery, LawError, Point, TooFewPoints
from service.laws.across import AcrossFit, fit_across, predict_across
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA
from tests.unit.rate_grid import RATE0, RATES, exposed, rate_grid


def fitted(points: Sequence[Point], **options: Any) -> AcrossFit:
    return fit_across(points, burn_in=0, n_starts=16, **options)


def truth(gamma: float, rank: int, step: float, rate: float) -> float:
    return OPENORCA.forgetting(rank * LLAMA_2_7B_PARAMS_PER_RANK, exposed(gamma, step, rate))


@pytest.fixture(scope="module")
def power() -> AcrossFit:
    return fitted(rate_grid(0.6, noise_sd=0.003, seed=1))


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1.4])
def test_gamma_is_found_from_exact_points(gamma: float) -> None:
    found = fitted(rate_grid(gamma))
    assert found.exposure == "rate_power"
    assert found.chosen_by == "held_out"
    assert found.scale.gamma == pytest.approx(gamma, abs=1e-3)
    assert found.scale.rate0 == pytest.approx(RATE0)
    for rank, step, rate in ((16, 70, 3e-5), (128, 260, 1.25e-4), (64, 100, 2e-4)):
        asked = predict_across(found, rank=rank, step=step, learning_rate=rate)
        assert asked.value == pytest.approx(truth(gamma, rank, step, rate), abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_cumulated_rate_is_chosen_where_it_is_true(seed: int) -> None:
    found = fitted(rate_grid(1.0, noise_sd=0.003, seed=seed))
    assert found.exposure == "cumulated_rate"
    assert found.scale.gamma == 1.0
    assert found.gamma_ci95 is None
    free = next(one for one in found.candidates if one.exposure == "rate_power")
    assert free.gamma_ci95 is not None
    assert free.gamma_ci95[0] < 1.0 < free.gamma_ci95[1]
    assert free.gamma == pytest.approx(1.0, abs=0.1)


def test_the_norm_of_the_update_is_chosen_where_it_is_true() -> None:
    found = fitted(rate_grid(None, noise_sd=0.003))
    assert found.exposure == "delta_norm"
    errors = {one.exposure: one.held_out_rmse or 0.0 for one in found.candidates}
    assert errors["delta_norm"] < 0.006 < 0.5 * min(errors["cumulated_rate"], errors["rate_power"])
    asked = predict_across(found, rank=32, delta_norm=10.0)
    true = OPENORCA.forgetting(32 * LLAMA_2_7B_PARAMS_PER_RANK, 150.0)
    assert asked.value == pytest.approx(true, abs=0.006)
    assert not asked.extrapolating
    assert predict_across(found, rank=32, delta_norm=1.0).distances["delta_norm"] > 0
    for unfit in ({"step": 100}, {"learning_rate": 5e-5}):
        with pytest.raises(BadQuery) as caught:
            predict_across(found, rank=32, delta_norm=10.0, **unfit)  # type: ignore[arg-type]
        assert caught.value.field in unfit


def test_a_rate_without_effect_is_noticed() -> None:
    found = fitted(rate_grid(0.0, noise_sd=0.003))
    assert any(line.startswith("rate_ignored:") for line in found.warnings)
    assert found.scale.gamma == pytest.approx(0.0, abs=0.1)
    assert not any(line.startswith("rate_ignored:") for line in fitted(rate_grid(0.6)).warnings)


def test_every_candidate_shows_its_errors(power: AcrossFit) -> None:
    shown = {one.exposure: one for one in power.candidates}
    assert set(shown) == {"cumulated_rate", "rate_power", "delta_norm", "steps"}
    for name, one in shown.items():
        assert len(one.held_out_by_rate) == len(RATES)
        pooled = math.sqrt(sum(error**2 for error in one.held_out_by_rate) / len(RATES))
        assert one.held_out_rmse == pytest.approx(pooled)  # every rate has as many points
        assert one.rmse >= shown["rate_power"].rmse or name == "delta_norm"
    assert min(shown.values(), key=lambda one: one.held_out_rmse or 0).exposure == power.exposure
    assert shown["steps"].gamma == 0.0
    assert power.reason.startswith("rate_power predicts learning rates it has not seen")


def test_gammas_interval_covers_the_truth() -> None:
    held = 0
    for seed in range(4):
        points = rate_grid(0.6, rates=RATES[::2], noise_sd=0.004, seed=seed)
        one = fitted(points, exposure="rate_power")
        assert one.gamma_ci95 is not None
        assert 0.01 < one.gamma_ci95[1] - one.gamma_ci95[0] < 0.4
        held += one.gamma_ci95[0] <= 0.6 <= one.gamma_ci95[1]
    assert held >= 3


def test_two_rates_are_judged_in_sample_and_say_so() -> None:
    found = fitted(rate_grid(1.0, rates=RATES[:2], noise_sd=0.002))
    assert found.chosen_by == "aicc"
    assert "in-sample" in found.reason
    assert any(line.startswith("rates_not_held_out:") for line in found.warnings)
    assert all(one.held_out_rmse is None for one in found.candidates)
    assert found.exposure == "cumulated_rate"
    known = fitted(rate_grid(0.4, rates=RATES[:2], noise_sd=0.002))
    assert known.exposure == "rate_power"
    assert known.scale.gamma == pytest.approx(0.4, abs=0.1)


def test_one_rate_is_too_few() -> None:
    with pytest.raises(TooFewPoints, match="2 values of learning_rate; 12 points have 1") as caught:
        fitted(rate_grid(1.0, rates=RATES[:1]))
    assert caught.value.axis == "learning_rate"


def test_too_little_for_the_joint_law_names_its_axis() -> None:
    for axis, few in (
        ("step", rate_grid(1.0, steps=(50, 260))),
        ("trainable_params", rate_grid(1.0, ranks=(8, 32))),
        ("delta_norm", [replace(point, delta_norm=None) for point in rate_grid(1.0)]),
    ):
        with pytest.raises(TooFewPoints) as caught:
            fitted(few, exposure="delta_norm" if axis == "delta_norm" else None)
        assert caught.value.axis == axis


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rate": None}, "learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": -1e-5}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"learning_rate": 3e-5}, "learning_rate"),  # another rate than its run's
        ({"delta_norm": math.nan}, "delta_norm"),
        ({"delta_norm": -1.0}, "delta_norm"),
        ({"ce_soft": math.nan}, "ce_soft"),
        ({"step": 0}, "step"),
    ],
)
def test_points_that_cannot_be_true(change: dict[str, Any], field: str) -> None:
    points = rate_grid(1.0)
    points[7] = replace(points[7], **change)
    with pytest.raises(BadPoints) as caught:
        fitted(points)
    assert caught.value.field == field
    assert caught.value.index in (7, 8)


def test_one_missing_norm_takes_that_candidate_out() -> None:
    points = rate_grid(1.0)
    points[3] = replace(points[3], delta_norm=None)
    found = fitted(points)
    assert "delta_norm" not in {one.exposure for one in found.candidates}
    assert any(line.startswith("no_delta_norm: 1 of 36") for line in found.warnings)
    assert found.delta_norm is None


def test_equal_norms_within_a_run_are_no_obstacle() -> None:
    points = [
        replace(point, delta_norm=round(point.delta_norm or 0))
        for point in rate_grid(None, rates=RATES[:2])
    ]
    assert len({(point.run, point.delta_norm) for point in points}) < len(points)
    assert fitted(points, exposure="delta_norm").exposure == "delta_norm"


def test_the_first_fifth_of_each_run_is_left_out() -> None:
    points = rate_grid(1.0, rates=RATES[:2], noise_sd=0.002)
    wild = [replace(point, step=20, ce_soft=5.0) for point in points if point.step == 50]
    assert fit_across([*points, *wild], n_starts=8) == fit_across(points, n_starts=8)
    first = fit_across(points, burn_in=51, n_starts=8)
    assert first.domain.step == (80, 260)
    assert first.law.n_points == 18


def test_order_and_units_change_nothing(power: AcrossFit) -> None:
    points = rate_grid(0.6, noise_sd=0.003, seed=1)
    assert fitted(points[::-1]) == power
    scaled = [
        replace(
            point,
            trainable_params=point.trainable_params * 7,
            step=point.step * 3,
            learning_rate=(point.learning_rate or 0.0) * 1000.0,
            delta_norm=(point.delta_norm or 0.0) * 0.01,
        )
        for point in points
    ]
    other = fitted(scaled)
    assert other.exposure == power.exposure
    assert other.scale.gamma == pytest.approx(power.scale.gamma, abs=1e-4)
    assert other.gamma_ci95 == pytest.approx(power.gamma_ci95, abs=1e-3)
    for rank, step, rate in ((16, 100, 3e-5), (256, 400, 2e-4)):
        one = predict_across(power, rank=rank, step=step, learning_rate=rate)
        two = predict_across(other, rank=rank, step=3 * step, learning_rate=1000 * rate)
        assert two.value == pytest.approx(one.value, abs=1e-5)
        assert two.pi95 == pytest.approx(one.pi95, abs=1e-4)
        assert two.distances == pytest.approx(one.distances, abs=1e-5)


def test_the_answer_survives_json(power: AcrossFit) -> None:
    body = json.loads(json.dumps(power.to_json(), allow_nan=False))
    assert body["form"] == "joint_lr"
    assert AcrossFit.from_json(body) == power
    assert power.coefficients["gamma"].ci95 == power.gamma_ci95
    with pytest.raises(LawError, match="not a stored"):
        AcrossFit.from_json({"form": "joint_lr"})


def test_an_unknown_exposure_is_refused() -> None:
    with pytest.raises(LawError, match="none of"):
        fitted(rate_grid(1.0), exposure="steps")


def test_norms_that_do_not_vary_make_no_law() -> None:
    """Points of one run at one exposure are moved apart by a unit: no spread to fit a law to."""
    points = [replace(point, delta_norm=1.0) for point in rate_grid(1.0)]
    with pytest.raises(TooFewPoints, match="1 values of delta_norm") as caught:
        fit_across(points, exposure="delta_norm")
    assert caught.value.axis == "delta_norm"
    assert "delta_norm" not in {one.exposure for one in fitted(points).candidates}
