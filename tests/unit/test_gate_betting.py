"""The bets are fair: exact conditional expectations and full enumerations, not simulations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.laws.betting import FIRST_FIT, Bets, Population
from service.laws.clipped import fewest_too_many, log_wealth

GREATER, LESS = 0, 1


def example(*, n: int, seed: int) -> tuple[np.ndarray, Population]:
    """Skewed values, and two control columns of which one tells a lot."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=n)
    values = np.exp(0.4 * known + 0.3 * rng.normal(size=n))
    return values, Population.of(n, np.column_stack([known, rng.normal(size=n)]))


def next_factors(limit: float, *, seen: int, seed: int, high: float) -> np.ndarray:
    """What wealth is multiplied by, for every window that may come next (2, remaining)."""
    n = 80
    values, population = example(n=n, seed=seed)
    remaining = n - seen
    bets = Bets(
        population,
        limit=np.full(remaining, limit * values.mean()),
        low=np.zeros(remaining),
        high=np.full(remaining, high),
    )
    for start in range(0, seen, 8):
        batch = slice(start, start + 8)
        shape = (remaining, 8)
        bets.observe(
            np.broadcast_to(values[batch], shape),
            np.broadcast_to(population.controls[batch], (*shape, 2)),
        )
    before = bets.wealth.copy()
    bets.observe(values[seen:, None], population.controls[seen:, None])
    return np.exp(bets.wealth - before)


@pytest.mark.parametrize("seen", [8, 16, 40, 72])
@pytest.mark.parametrize("high", [5.0, 12.0])
@pytest.mark.parametrize("seed", range(5))
def test_each_bet_is_fair_at_the_true_mean(seen: int, high: float, seed: int) -> None:
    """The next window is any of the remaining ones: over them wealth keeps its mean."""
    factors = next_factors(1.0, seen=seen, seed=seed, high=high)
    assert factors.mean(axis=1) == pytest.approx([1.0, 1.0], abs=1e-9)
    assert (factors >= 0).all()


def test_the_fairness_test_sees_bets_and_controls() -> None:
    """Else it would hold of a bet of nothing."""
    factors = np.stack([next_factors(1.0, seen=40, seed=s, high=5.0) for s in range(5)])
    assert factors.std(axis=-1).max(axis=0).min() > 0.01
    values, population = example(n=80, seed=0)
    order = np.arange(80)[None]
    bets = Bets(population, limit=np.full(1, 0.9), low=np.zeros(1), high=np.full(1, 5.0))
    for start in range(0, 2 * FIRST_FIT, 8):
        windows = order[:, start : start + 8]
        bets.observe(values[windows], population.controls[windows])
    assert bets._use[GREATER, 0] == 1.0


@pytest.mark.parametrize("seen", [8, 40])
def test_a_bet_against_a_null_loses_within_it(seen: int) -> None:
    above = next_factors(1.1, seen=seen, seed=1, high=12.0)
    below = next_factors(0.9, seen=seen, seed=1, high=12.0)
    assert above[GREATER].mean() <= 1.0 + 1e-12
    assert below[LESS].mean() <= 1.0 + 1e-12
    assert below[GREATER].mean() > 1.0


def test_wealth_over_all_orders_of_a_small_population_is_one() -> None:
    values = np.array([0.0, 0.3, 0.5, 1.2, 3.0])
    orders = np.array(list(itertools.permutations(range(5))))
    rows = len(orders)
    bets = Bets(
        Population.of(5, np.empty((5, 0))),
        limit=np.full(rows, values.mean()),
        low=np.zeros(rows),
        high=np.full(rows, 4.0),
    )
    for t in range(4):
        bets.observe(values[orders[:, t : t + 1]], np.empty((rows, 1, 0)))
        assert np.exp(bets.wealth).mean(axis=1) == pytest.approx([1.0, 1.0], abs=1e-12)


def test_what_cannot_be_true_any_more_is_certain() -> None:
    """One value above the null's whole sum; and a mean that the rest cannot reach."""
    population = Population.of(4, np.empty((4, 0)))
    bets = Bets(population, limit=np.ones(1), low=np.zeros(1), high=np.full(1, 10.0))
    bets.observe(np.array([[4.5, 0.0]]), np.empty((1, 2, 0)))
    assert bets.greater == np.inf
    bets = Bets(population, limit=np.full(1, 8.0), low=np.zeros(1), high=np.full(1, 10.0))
    bets.observe(np.zeros((1, 2)), np.empty((1, 2, 0)))
    assert bets.less == np.inf


@settings(max_examples=25, deadline=None)
@given(st.integers(-20, 20), st.integers(0, 1000))
def test_units_do_not_matter(power: int, seed: int) -> None:
    """Values, limit and bounds times a power of two: the same wealth to the last bit."""
    values, population = example(n=64, seed=seed)
    scale = 2.0**power
    found = []
    for unit in (1.0, scale):
        bets = Bets(
            population,
            limit=np.full(1, unit),
            low=np.zeros(1),
            high=np.full(1, 10 * unit),
        )
        for start in range(0, 56, 8):
            batch = np.arange(start, start + 8)[None]
            bets.observe(unit * values[batch], population.controls[batch])
        found.append(bets.wealth)
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("clipped", [3, 4, 6, 8])
def test_the_share_bet_is_fair_at_its_limit_and_loses_beyond(clipped: int) -> None:
    """Over all places that the clipped windows of eight may have: mean wealth at most one."""
    assert fewest_too_many(8, 0.25) == 3
    places = list(itertools.combinations(range(8), clipped))
    marks = np.zeros((len(places), 8), int)
    for row, place in enumerate(places):
        marks[row, list(place)] = 1
    for t in range(1, 8):
        wealth = np.exp(log_wealth(8, 0.25, t, marks[:, :t].sum(axis=1))).mean()
        assert wealth <= 1 + 1e-12
        if clipped == 3 and t <= 5:  # later a few clipped are known not to be three in all
            assert wealth == pytest.approx(1.0)


def test_a_small_share_costs_little_more_than_the_least_possible() -> None:
    n, least = 5000, fewest_too_many(5000, 0.01)
    assert least == 51
    missed = np.cumsum(np.log1p(-least / (n - np.arange(1000))))  # of not meeting any of them
    floor = int(np.argmax(missed <= np.log(0.05))) + 1
    needed = next(
        t for t in range(1, 1000) if log_wealth(n, 0.01, t, np.zeros(1, int)) > np.log(20)
    )
    assert floor <= needed <= 1.06 * floor


def test_a_share_that_every_corpus_keeps_is_certain() -> None:
    assert log_wealth(10, 1.0, 1, np.array([1])) == np.inf
