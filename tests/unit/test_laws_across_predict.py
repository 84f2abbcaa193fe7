"""Asking a law across learning rates: its intervals, its distances, and what it refuses."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.laws import BadQuery, intervals
from service.laws.across import AcrossFit, fit_across, predict_across
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK
from tests.unit.rate_grid import RATES, rate_grid


@pytest.fixture(scope="module")
def power() -> AcrossFit:
    points = rate_grid(0.6, rates=RATES, noise_sd=0.003, seed=1)
    return fit_across(points, burn_in=0, exposure="rate_power", n_starts=16)


def test_the_derivatives_are_those_of_the_law(power: AcrossFit) -> None:
    """Against differences of the wire form, written out."""
    a, alpha, b, beta, rho, shift, sign = power.law.values
    error, gamma = power.gamma_error, power.scale.gamma
    assert error is not None
    assert gamma is not None
    log_p0, log_n0 = error.centre.log_p0, error.centre.log_n0
    params, step, rate = 32 * LLAMA_2_7B_PARAMS_PER_RANK, 100.0, 1e-4
    numbers = [
        math.log(a) - alpha * log_p0,
        math.log(alpha),
        math.log(b) - beta * (math.log(power.scale.unit) + log_n0),
        math.log(beta),
        math.log(rho),
        shift,
        gamma,
    ]

    def law(at: Sequence[float]) -> float:
        exposure = step * (rate / power.scale.rate0) ** at[6]
        from_p = math.exp(at[0]) * (params / math.exp(log_p0)) ** -math.exp(at[1])
        from_x = math.exp(at[2]) * (exposure / math.exp(log_n0)) ** -math.exp(at[3])
        return float(sign * (from_p + from_x) ** math.exp(at[4]) + at[5])

    asked = predict_across(power, rank=32, step=step, learning_rate=rate)
    assert law(numbers) == pytest.approx(asked.value, abs=1e-9)
    gradient = []
    for index in range(7):
        up, down = list(numbers), list(numbers)
        up[index] += 1e-5
        down[index] -= 1e-5
        gradient.append((law(up) - law(down)) / 2e-5)
    expected = intervals.band(error.clusters, power.law.noise, np.array([gradient]))
    assert asked.ci95 is not None
    assert asked.pi95 is not None
    assert asked.pi95[0] < asked.ci95[0] < asked.value < asked.ci95[1] < asked.pi95[1]
    assert asked.ci95[1] - asked.value == pytest.approx(float(expected.curve[0]), rel=1e-3)
    assert asked.pi95[1] - asked.value == pytest.approx(float(expected.new_run[0]), rel=1e-3)
    fixed = predict_across(replace(power, gamma_error=None), rank=32, step=step, learning_rate=rate)
    assert fixed.value == asked.value
    assert fixed.ci95 != asked.ci95


def test_distances_on_every_axis(power: AcrossFit) -> None:
    inside = predict_across(power, rank=32, step=100, learning_rate=5e-5)
    assert not inside.extrapolating
    assert inside.warnings == tuple(
        line for line in inside.warnings if not line.startswith("extrapolating")
    )
    width = math.log(RATES[-1] / RATES[0])
    far = predict_across(power, rank=32, step=100, learning_rate=2.5e-4)
    assert far.distances["learning_rate"] == pytest.approx(math.log(2) / width)
    assert far.distances["step"] == far.distances["trainable_params"] == 0.0
    assert far.extrapolating
    assert any(line.startswith("extrapolating: learning_rate") for line in far.warnings)
    assert not any("extrapolating: step" in line for line in far.warnings)
    assert sum(line.startswith("beyond_form:") for line in far.warnings) == 1


def test_a_corner_that_no_run_reached_is_far() -> None:
    points = [
        point
        for point in rate_grid(1.0, noise_sd=0.002)
        if not (point.learning_rate == RATES[-1] and point.step > 80)
    ]
    law = fit_across(points, burn_in=0, exposure="cumulated_rate", n_starts=16)
    corner = predict_across(law, rank=32, step=260, learning_rate=RATES[-1])
    assert corner.distances["step"] == corner.distances["learning_rate"] == 0.0
    assert corner.distances["exposure"] > 0
    assert corner.extrapolating


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"rank": 8, "step": 100}, "learning_rate"),
        ({"rank": 8, "learning_rate": 5e-5}, "step"),
        ({"step": 100, "learning_rate": 5e-5}, "trainable_params"),
        ({"rank": 8, "step": 100, "learning_rate": 0.0}, "learning_rate"),
        ({"rank": 8, "step": 100, "learning_rate": math.nan}, "learning_rate"),
        ({"rank": 8, "step": 100, "learning_rate": 1e30}, "learning_rate"),
        ({"rank": 8, "step": math.nan, "learning_rate": 5e-5}, "step"),
        ({"rank": 8, "step": 0.5, "learning_rate": 5e-5}, "step"),
        ({"rank": 8, "step": 100, "learning_rate": 5e-5, "delta_norm": 1.0}, "delta_norm"),
        ({"rank": 8, "trainable_params": 7, "step": 100, "learning_rate": 5e-5}, "rank"),
    ],
)
def test_what_it_refuses(power: AcrossFit, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(BadQuery) as caught:
        predict_across(power, **asked)
    assert caught.value.field == field
