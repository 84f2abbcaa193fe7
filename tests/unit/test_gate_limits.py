"""Values at a limit, and limits that no test can be run at."""

from typing import Any

import numpy as np
import pytest

from service.laws.gate import Gate
from service.laws.order import order
from service.laws.statistic import BadCheck, Check
from service.laws.verdict import Verdict

Column = np.ndarray[Any, Any]


def verdict(check: Check, values: Column, sizes: Column, *, seed: int) -> Verdict:
    """Of every window: `values` are those of all positions, of the check's metric."""
    n, starts = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    gate = Gate([check], sizes, alpha=1e-6, order=order(str(seed), n))
    while not gate.done:
        windows = gate.next_windows(100)
        gate.observe(windows, [{check.metric: values[starts[w] : starts[w + 1]]} for w in windows])
    return gate.outcome().verdict


@pytest.mark.parametrize("field", ["fail_below", "warn_below"])
def test_an_agreement_that_equals_its_limit_passes_however_rare_disagreement_is(field: str) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(150, 260, 600)
        same = np.ones(sizes.sum(), bool)
        same[rng.choice(len(same), 1 + seed % 4, replace=False)] = False
        share = float(same.mean())
        found.append(verdict(Check("top", "same_top", **{field: share}), same, sizes, seed=seed))
        one_less = Check("top", "same_top", **{field: share + 0.5 / len(same)})
        assert verdict(one_less, same, sizes, seed=seed) == field.removesuffix("_below")
    assert set(found) == {"pass"}


@pytest.mark.parametrize("field", ["fail_above", "warn_above"])
def test_a_mean_that_equals_its_limit_passes(field: str) -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 200, 40)
        kl = np.abs(rng.normal(size=sizes.sum())).astype(np.float32)
        mean = float(kl.mean(dtype=np.float64))
        found.append(verdict(Check("kl", "kl", **{field: mean}), kl, sizes, seed=seed))
        below = Check("kl", "kl", **{field: mean * (1 - 1e-9)})
        assert verdict(below, kl, sizes, seed=seed) == field.removesuffix("_above")
    assert set(found) == {"pass"}


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (Check("x", "same_top", fail_below=1e-17), "fail_below"),
        (Check("x", "same_top", fail_below=1 - 1e-16), "fail_below"),
        (Check("x", "kl", fail_above=1e-200), "fail_above"),
        (Check("x", "kl", fail_above=5e-324, clip=1.2), "fail_above"),
        (Check("x", "kl", fail_above=0.1, clip=float(np.nextafter(1, 2))), "clip"),
        (Check("x", "kl", baseline="prod", max_increase=1e-300), "max_increase"),
    ],
)
def test_a_limit_lost_in_rounding_is_refused_and_not_run_into(check: Check, field: str) -> None:
    with pytest.raises(BadCheck) as refused:
        Gate([check], np.full(9, 16), alpha=0.05, order=order("a", 9))
    assert refused.value.field == field


@pytest.mark.parametrize("limit", [1e-9, 1000.0])
@pytest.mark.parametrize("clip", [1 + 1e-8, 10.0, 1000.0])
@pytest.mark.parametrize("ratio", [0.3, 3.0])
def test_the_outermost_limits_are_decided(limit: float, clip: float, ratio: float) -> None:
    """Warnings of numpy are errors here: nothing divides by zero or overflows."""
    rng = np.random.default_rng(3)
    sizes = np.full(60, 16)
    kl = rng.uniform(0.9, 1.1, sizes.sum()) * limit * ratio
    check = Check("kl", "kl", fail_above=limit, clip=clip)
    gate = Gate([check], sizes, alpha=0.05, order=order("a", 60))
    while not gate.done:
        windows = gate.next_windows(8)
        gate.observe(windows, [{"kl": kl[16 * w : 16 * (w + 1)]} for w in windows])
    assert gate.outcome().verdict == ("fail" if ratio > 1 else "pass")
