"""What must not matter: the order of points, the units of P and N, a constant of the metric."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.laws import Form, LawFit, Point, predict
from service.laws.forgetting import NEWS, OPENORCA
from service.laws.quantities import Floats
from tests.unit.paper_grid import fit_whole, grid

few = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
noisy = st.builds(
    lambda law, noise, seed: grid(
        law, ranks=(8, 16, 32, 64, 256), steps=(50, 90, 150, 260), noise_sd=noise, seed=seed
    ),
    law=st.sampled_from([OPENORCA, NEWS]),
    noise=st.floats(1e-4, 1e-2),
    seed=st.integers(0, 10**6),
)
FORMS: tuple[Form, ...] = ("linear", "joint")
# The fit stops on a plateau where a gain is below 1e-9 of the cost: digits beyond it are chance.
CLOSE = 2e-5


def curve(law: LawFit, points: list[Point]) -> Floats:
    """Value and both interval widths at every point: (k, 3)."""
    rows = []
    for point in points:
        if law.form == "linear":
            asked = predict(law, ft_loss=point.ft_loss)
        else:
            asked = predict(law, trainable_params=point.trainable_params, step=point.step)
        assert asked.ci95 is not None
        assert asked.pi95 is not None
        rows.append([asked.value, np.ptp(asked.ci95), np.ptp(asked.pi95)])
    return np.array(rows)


@few
@given(points=noisy, data=st.data())
def test_order_of_points(points: list[Point], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(points))
    for form in FORMS:
        assert fit_whole(shuffled, form) == fit_whole(points, form)


@few
@given(points=noisy, p_factor=st.integers(2, 1000), n_factor=st.integers(2, 1000))
def test_units_of_params_and_steps(points: list[Point], p_factor: int, n_factor: int) -> None:
    scaled = [
        replace(p, trainable_params=p.trainable_params * p_factor, step=p.step * n_factor)
        for p in points
    ]
    one, other = fit_whole(points), fit_whole(scaled)
    assert curve(other, scaled)[:, 0] == pytest.approx(curve(one, points)[:, 0], abs=CLOSE)
    widths = curve(one, points)[:, 1:]
    assert curve(other, scaled)[:, 1:] == pytest.approx(widths, rel=0.02, abs=1e-4)
    assert other.condition_number == pytest.approx(one.condition_number, rel=0.1)
    assert other.r2 == pytest.approx(one.r2, abs=1e-6)
    assert fit_whole(scaled, "linear").coefficients == fit_whole(points, "linear").coefficients


@few
@given(points=noisy, constant=st.floats(0.0, 5.0))
def test_a_constant_of_the_metric(points: list[Point], constant: float) -> None:
    lifted = [replace(p, ce_soft=(p.ce_soft or 0.0) + constant) for p in points]
    for form in FORMS:
        one, other = fit_whole(points, form), fit_whole(lifted, form)
        assert curve(other, points)[:, 0] == pytest.approx(
            curve(one, points)[:, 0] + constant, abs=CLOSE
        )
        assert other.r2 == pytest.approx(one.r2, abs=1e-6)
        told = {name: c.identifiable for name, c in one.coefficients.items()}
        assert {name: c.identifiable for name, c in other.coefficients.items()} == told


@few
@given(points=noisy)
def test_one_fit_serves_kl_and_soft_cross_entropy(points: list[Point]) -> None:
    entropy = 0.5  # of the base, in these points
    for form in FORMS:
        soft, kl = fit_whole(points, form), fit_whole(points, form, metric="kl")
        gap = curve(soft, points) - curve(kl, points)
        assert gap[:, 0] == pytest.approx(entropy, abs=CLOSE)
        assert gap[:, 1:] == pytest.approx(0.0, abs=1e-3)
