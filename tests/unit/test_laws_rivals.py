"""Rivals and folds against values worked out by hand; the spread, R2 parts and AICc likewise."""

import math

import numpy as np
import pytest

from service.laws import Point, TooFewPoints
from service.laws.contenders import contenders
from service.laws.criterion import criteria, run_correlation
from service.laws.heldout import errors, folds, residuals
from service.laws.measured import Measured, Places, columns
from service.laws.quantities import ALIKE, Floats
from service.laws.rivals import Predictor, last_value, log_linear, mean, quadratic, saturating
from service.laws.spread import covariance_of_seeds, of_seeds
from service.laws.variance import explained


def known(rows: list[tuple[str, int, int, float]]) -> Measured:
    """Rows of run, params, step and forgetting; L_ft is 3 less half of it."""
    return columns(
        [
            Point(run=run, trainable_params=params, step=step, ft_loss=3.0 - value / 2, kl=value)
            for run, params, step, value in rows
        ],
        "kl",
    )


def grid(curve: object, n_runs: int = 4) -> Measured:
    assert callable(curve)
    return known(
        [
            (f"run-{i}", 100 * 2**i, step, float(curve(math.log(100 * 2**i), float(step))))
            for i in range(n_runs)
            for step in (10, 20, 40, 80, 160)
        ]
    )


def at(predictor: Predictor, run: str, params: float, step: float) -> float:
    places = Places(np.array([run]), np.array([params]), np.array([step]), np.array([2.5]))
    return float(predictor(places)[0])


def test_the_mean_weighs_runs_as_a_fit_does() -> None:
    points = known([("a", 10, 1, 1.0), ("a", 10, 2, 1.0), ("a", 10, 3, 1.0), ("b", 20, 1, 3.0)])
    three = 3 / (1 + 2 * ALIKE)  # what three points of one run weigh together
    assert at(mean(points), "c", 40, 5) == pytest.approx((three * 1.0 + 3.0) / (three + 1))


def test_last_value_carried_over() -> None:
    points = known(
        [
            ("a", 100, 10, 0.1),
            ("a", 100, 20, 0.2),
            ("b", 400, 10, 0.3),
            ("b", 400, 20, 0.4),
            ("c", 400, 10, 0.5),
            ("c", 400, 20, 0.6),
        ]
    )
    carried = last_value(points)
    assert at(carried, "a", 100, 99) == 0.2  # its own last value
    assert at(carried, "new", 100, 10) == 0.1  # the same rank at the same step
    assert at(carried, "new", 90, 21) == 0.2  # the nearest rank at the nearest step
    assert at(carried, "new", 500, 10) == pytest.approx(0.4)  # two runs of the nearest rank
    assert at(carried, "new", 200, 20) == pytest.approx((0.2 + 0.4 + 0.6) / 3)  # halfway in ln P


@pytest.mark.parametrize(
    ("rival", "curve"),
    [
        (log_linear, lambda p, n: 0.1 + 0.02 * p + 0.07 * math.log(n)),
        (
            quadratic,
            lambda p, n: (
                0.1
                + 0.2 * p
                - 0.01 * p**2
                + 0.05 * math.log(n)
                + 0.02 * p * math.log(n)
                + 0.003 * math.log(n) ** 2
            ),
        ),
    ],
)
def test_linear_rivals_find_their_own_curve(rival: object, curve: object) -> None:
    assert callable(rival)
    assert callable(curve)
    found = rival(grid(curve))
    assert at(found, "new", 5000, 500) == pytest.approx(curve(math.log(5000), 500.0), abs=1e-9)


def test_saturating_finds_its_own_curve() -> None:
    def curve(p: float, n: float) -> float:
        return 0.2 + 0.03 * p - (0.1 + 0.01 * p) * math.exp(-n / 50.0)

    found = saturating(grid(curve))
    assert at(found, "new", 2000, 400) == pytest.approx(curve(math.log(2000), 400.0), abs=2e-3)


def test_rivals_refuse_what_is_not_determined() -> None:
    with pytest.raises(TooFewPoints, match="do not determine 6"):
        quadratic(grid(lambda p, n: p + n, n_runs=2))
    with pytest.raises(TooFewPoints, match="do not determine 3"):
        log_linear(grid(lambda p, n: p + n, n_runs=1))


def test_rivals_are_blind_to_what_they_predict() -> None:
    """Nothing that a fold predicts may reach the fit: garbage there moves no prediction."""
    points = grid(lambda p, n: 0.1 * p + 0.05 * math.log(n))
    fold = folds(points)["inner_rank"][0]
    spoilt = Measured(
        run=points.run,
        params=points.params,
        step=points.step,
        ft_loss=points.ft_loss,
        value=np.where(fold.test, 99.0, points.value),
        points=points.points,
        metric="kl",
    )
    rivals = [c for c in contenders("kl") if c.role != "form"]
    clean = residuals(points, rivals, {"inner_rank": (fold,)})["inner_rank"]
    dirty = residuals(spoilt, rivals, {"inner_rank": (fold,)})["inner_rank"]
    for name, missed in clean.by_contender.items():
        predicted = points.value[clean.where] - missed
        assert 99.0 - dirty.by_contender[name] == pytest.approx(predicted)


def test_folds_leave_out_ranks_steps_and_runs() -> None:
    found = folds(grid(lambda p, n: p))
    assert [fold.name for fold in found["inner_rank"]] == [
        "200 trainable_params",
        "400 trainable_params",
    ]
    assert [fold.name for fold in found["edge_rank"]] == [
        "100 trainable_params",
        "800 trainable_params",
    ]
    assert [fold.name for fold in found["later_steps"]] == ["step > 40"]  # 3 of 5 are fitted
    assert found["later_steps"][0].test.sum() == 4 * 2
    assert [int(fold.test.sum()) for fold in found["run"]] == [5, 5, 5, 5]


def test_every_fold_has_a_name_of_its_own() -> None:
    """LoRA of one rank on more or fewer modules: two values of P, held out apart."""
    points = [
        Point(run=f"{params}-{step}", rank=8, trainable_params=params, step=step, ft_loss=1, kl=1)
        for params in (100, 200, 300)
        for step in (1, 2)
    ]
    found = folds(columns(points, "kl"))
    names = [fold.name for fold in (*found["inner_rank"], *found["edge_rank"])]
    assert sorted(names) == [f"{params} trainable_params" for params in (100, 200, 300)]


def test_errors_by_hand() -> None:
    points = known([("a", 10, 1, 1.0), ("a", 10, 2, 1.0), ("b", 20, 1, 4.0)])
    rivals = [c for c in contenders("kl") if c.name == "mean"]
    found = residuals(points, rivals, folds(points))
    run = errors(points, "run", found["run"], unit=1.5)
    missed = run.errors["mean"]
    assert missed is not None
    # Each run is predicted by the other's mean: 3 nats off, at every point.
    assert (missed.mae, missed.rmse, missed.mae_in_spreads) == (3.0, 3.0, 2.0)
    assert missed.by_fold == {"a": 3.0, "b": 3.0}
    assert run.winner == "mean"
    later = errors(points, "later_steps", found["later_steps"], unit=None).errors["mean"]
    assert later is not None
    assert later.mae == pytest.approx(1.5)  # |1 - (1 + 4) / 2|
    assert later.mae_in_spreads is None


def test_spread_of_the_seeds_is_pooled() -> None:
    rows = [("a", 10, 1, 1.0), ("b", 10, 1, 1.2), ("c", 10, 1, 1.4), ("a", 10, 2, 2.0)]
    rows += [("b", 10, 2, 2.2), ("z", 20, 1, 9.0)]
    found = of_seeds(known(rows))
    assert found is not None
    assert found.nats == pytest.approx(math.sqrt((0.08 + 0.02) / 3))
    assert (found.n_places, found.freedom) == (2, 3)
    covariance = covariance_of_seeds(known(rows))
    assert covariance is not None
    assert covariance[1, 1] == pytest.approx(found.nats**2)
    assert covariance[0, 1] == pytest.approx(-(found.nats**2) / 2)  # L_ft falls half as fast
    assert of_seeds(known([("a", 10, 1, 1.0), ("b", 20, 1, 2.0)])) is None


def test_parts_of_r2() -> None:
    """A predictor that knows each run's slope but not its height, and the other way round."""
    points = known([("a", 10, 1, 1.0), ("a", 10, 2, 2.0), ("b", 20, 1, 5.0), ("b", 20, 2, 6.0)])
    slope_only: Floats = np.array([3.0, 4.0, 3.0, 4.0])
    height_only: Floats = np.array([1.5, 1.5, 5.5, 5.5])
    one = explained(points, slope_only, None, None)
    other = explained(points, height_only, None, None)
    assert (one.within_runs, one.between_runs) == (1.0, 0.0)
    assert (other.within_runs, other.between_runs) == (0.0, 1.0)
    assert other.overall == pytest.approx(1.0 - 1.0 / 17.0)
    assert other.rmse == pytest.approx(0.5)
    assert one.unseen_runs is None
    left = np.array([1.0, 1.0, -1.0, -1.0])
    assert explained(points, slope_only, left, 2.0 * left).unseen_runs == pytest.approx(0.75)


def test_aicc_by_its_formula() -> None:
    rng = np.random.default_rng(0)
    points = grid(lambda p, n: 0.1 * p)
    small, large = rng.normal(size=20), 2.0 * rng.normal(size=20)
    found = criteria(points, {"small": (2, small), "large": (1, large)})
    by_hand = {
        name: 20 * math.log(float(np.mean(r**2))) + 2 * k + 2 * k * (k + 1) / (20 - k - 1)
        for name, k, r in (("small", 3, small), ("large", 2, large))
    }
    assert found.by_contender["small"].points == 0.0
    assert found.by_contender["large"].points == pytest.approx(by_hand["large"] - by_hand["small"])


def test_points_that_move_as_one_count_as_runs() -> None:
    points = grid(lambda p, n: 0.1 * p)
    offsets = np.array([0.3, -0.1, 0.2, -0.4])[points.run_index]
    assert run_correlation(points, offsets) == pytest.approx(1.0)
    found = criteria(points, {"offsets": (0, offsets)})
    assert found.n_effective == pytest.approx(4.0)
    alone = np.random.default_rng(1).normal(size=(200, 20))
    assert np.mean([run_correlation(points, row) for row in alone]) < 0.1
