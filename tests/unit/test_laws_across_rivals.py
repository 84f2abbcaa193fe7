"""What a law across learning rates must beat: rivals that are told the cumulated rate."""

from dataclasses import replace

import numpy as np
import pytest

from service.laws import Point
from service.laws.across import AcrossFit, fit_across
from tests.unit.rate_grid import RATES, rate_grid


def fitted(points: list[Point]) -> AcrossFit:
    return fit_across(points, burn_in=0, n_starts=16)


def bent(points: list[Point]) -> list[Point]:
    """Forgetting that rises and falls again with N * learning_rate, as no power law does."""
    exposure = np.log([point.step * (point.learning_rate or 0.0) for point in points])
    off = (exposure - exposure.mean()) / np.ptp(exposure)
    rank = np.log([float(point.rank or 0) for point in points])
    values = 1.0 + 0.02 * rank - 2.0 * off**2
    return [replace(p, ce_soft=float(v)) for p, v in zip(points, values, strict=True)]


def test_a_true_law_is_not_beaten() -> None:
    found = fitted(rate_grid(1.0, noise_sd=0.003, seed=1))
    errors = [rival.held_out_rmse for rival in found.rivals]
    assert {rival.name for rival in found.rivals} == {
        "last_value", "log_linear", "quadratic", "linear"
    }  # fmt: skip
    assert errors == sorted(errors)
    assert not [line for line in found.warnings if line.startswith("beaten")]
    assert AcrossFit.from_json(found.to_json()) == found


def test_the_plane_errs_as_a_plain_least_squares_does() -> None:
    points = rate_grid(1.0, noise_sd=0.003, seed=2)
    plane = next(one for one in fitted(points).rivals if one.name == "log_linear")
    rate = np.array([point.learning_rate or 0.0 for point in points])
    exposure = np.log([point.step * (point.learning_rate or 0.0) for point in points])
    params = np.log([float(point.trainable_params) for point in points])
    design = np.stack([np.ones_like(params), params, exposure], axis=1)
    value = np.array([point.ce_soft for point in points])
    errors = []
    for one in RATES:
        seen = rate != one
        known = np.linalg.lstsq(design[seen], value[seen], rcond=None)[0]
        errors.append(value[~seen] - design[~seen] @ known)
    expected = float(np.sqrt((np.concatenate(errors) ** 2).mean()))
    assert plane.held_out_rmse == pytest.approx(expected, rel=1e-3)  # whole units of exposure


def test_a_wrong_law_is_beaten_and_says_so() -> None:
    found = fitted(bent(rate_grid(1.0)))
    assert found.rivals[0].name == "quadratic"
    assert found.rivals[0].held_out_rmse < 1e-3
    assert [line for line in found.warnings if line.startswith("beaten: a quadratic")]


def test_two_rates_hold_none_out() -> None:
    points = [p for p in rate_grid(1.0, noise_sd=0.003, seed=1) if p.learning_rate in RATES[:2]]
    assert fitted(points).rivals == ()
