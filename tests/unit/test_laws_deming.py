"""The line with errors in both losses, against a search for the maximum of its likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom

from service.laws import Point, TooFewPoints
from service.laws.deming import both_errors
from service.laws.forgetting import NEWS, OPENORCA, PaperLaw
from service.laws.measured import Measured, columns
from service.laws.quantities import Floats
from tests.unit.paper_grid import grid


def measured(x: Floats, y: Floats) -> Measured:
    """Runs of ten points each."""
    return columns(
        [
            Point(
                run=f"run-{i // 10}",
                trainable_params=10 + i // 10,
                step=1 + i % 10,
                ft_loss=a,
                kl=b,
            )
            for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True))
        ],
        "kl",
    )


def noisy_line(error: Floats, *, n: int, seed: int, slope: float = -1.7) -> Measured:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(2.0, 3.0, size=n)
    off = rng.multivariate_normal([0.0, 0.0], error, size=n)
    return measured(truth + off[:, 0], 7.0 + slope * truth + off[:, 1])


def searched(points: Measured, error: Floats) -> tuple[float, float]:
    """Slope and intercept that minimise the points' Mahalanobis distances to the line."""

    def cost(line: Floats) -> float:
        slope, level = line
        variance = error[1, 1] - 2 * slope * error[0, 1] + slope**2 * error[0, 0]
        miss = points.value - level - slope * (points.ft_loss - 2.5)
        return float(np.sum(miss**2) / variance)

    found = minimize(cost, np.array([-1.0, 3.0]), method="Nelder-Mead", tol=1e-12)
    return float(found.x[0]), float(found.x[1] - 2.5 * found.x[0])


@pytest.mark.parametrize(
    "error",
    [
        np.diag([0.01, 0.01]),
        np.diag([0.02, 0.005]),
        np.array([[0.01, -0.008], [-0.008, 0.01]]),
        np.array([[0.01, 0.004], [0.004, 0.02]]),
    ],
)
def test_closed_form_is_the_maximum_likelihood(error: Floats) -> None:
    points = noisy_line(error, n=60, seed=1)
    found = both_errors(points, error, "seeds").errors_in_both
    slope, level = searched(points, error)
    assert -found.c_f_ft == pytest.approx(slope, rel=1e-5)
    assert found.s_f_ft == pytest.approx(level, rel=1e-5)


def test_attenuation_is_undone() -> None:
    error = np.diag([0.04, 0.01])
    found = both_errors(noisy_line(error, n=1500, seed=2), error, "seeds")
    reliability = (1 / 12) / (1 / 12 + 0.04)
    assert found.least_squares.c_f_ft == pytest.approx(1.7 * reliability, rel=0.05)
    assert found.errors_in_both.c_f_ft == pytest.approx(1.7, rel=0.05)
    assert found.attenuation == pytest.approx(reliability, rel=0.05)
    assert found.reliability == pytest.approx(reliability, rel=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    error = np.diag([0.01, 0.01])
    held = 0
    for seed in range(200):
        interval = both_errors(noisy_line(error, n=100, seed=seed), error, "seeds")
        ends = interval.errors_in_both.c_f_ft_ci95
        assert ends is not None
        held += ends[0] < 1.7 < ends[1]
    assert binom.ppf(0.001, 200, 0.95) <= held <= binom.ppf(0.999, 200, 0.95)


def test_without_errors_in_ft_loss_it_is_least_squares() -> None:
    points = noisy_line(np.diag([0.0, 0.01]), n=40, seed=3)
    found = both_errors(points, np.diag([0.0, 0.01]), "seeds")
    slope, level = np.polyfit(points.ft_loss, points.value, 1)
    assert found.least_squares.c_f_ft == pytest.approx(-slope)
    assert found.errors_in_both.c_f_ft == pytest.approx(-slope)
    assert found.errors_in_both.s_f_ft == pytest.approx(level)
    assert found.attenuation == pytest.approx(1.0)


@pytest.mark.parametrize(("law", "slope"), [(OPENORCA, 1.783), (NEWS, 1.057)])
def test_papers_grid(law: PaperLaw, slope: float) -> None:
    points = columns(grid(law), "ce_soft")
    found = both_errors(points, np.diag([1e-6, 1e-4]), "residuals")
    assert found.least_squares.c_f_ft == pytest.approx(slope, abs=5e-4)
    assert 0.99 < found.attenuation < 1.0


def test_points_on_the_line_itself() -> None:
    x = np.linspace(2.0, 3.0, 20)
    found = both_errors(measured(x, 7.0 - 1.7 * x), np.diag([1e-4, 1e-4]), "seeds")
    assert found.errors_in_both.c_f_ft == pytest.approx(1.7, rel=1e-6)


def test_no_spread_is_no_line() -> None:
    with pytest.raises(TooFewPoints):
        both_errors(measured(np.full(20, 2.0), np.linspace(0, 1, 20)), np.eye(2) * 1e-4, "seeds")


def test_a_run_that_alone_tells_the_line_leaves_no_interval() -> None:
    """Without it every L_ft is the same, and the slope would be 0 / 0."""
    x = np.append(np.full(20, 2.0), np.linspace(1.0, 3.0, 10))
    found = both_errors(measured(x, 5.0 - x), np.diag([1e-4, 1e-4]), "seeds")
    assert found.least_squares.c_f_ft == pytest.approx(1.0)
    assert found.least_squares.c_f_ft_ci95 is None
    assert found.errors_in_both.c_f_ft_ci95 is None


def test_a_level_line_is_not_attenuated() -> None:
    x, y = np.tile([1.0, 2.0, 3.0], 10), np.tile([4.0, 5.0, 4.0], 10)
    found = both_errors(measured(x, y), np.diag([0.0, 1e-4]), "seeds")
    assert found.errors_in_both.c_f_ft == 0.0
    assert found.attenuation is None
