"""Asking backwards: the inverse of `predict`, with its limits and its refusals."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.laws import BadQuery, LawFit, Point, fit, predict
from service.laws.across import AcrossFit, fit_across, predict_across
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, NEWS, OPENORCA, PaperLaw
from service.laws.inverse import Inverse, largest_rank, largest_step, lowest_loss
from tests.unit.paper_grid import FEW_STEPS, grid
from tests.unit.rate_grid import RATES, rate_grid

NOISY = grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.003)


@pytest.fixture(scope="module")
def joint() -> LawFit:
    return fit(NOISY, burn_in=0)


@pytest.fixture(scope="module")
def line() -> LawFit:
    return fit(NOISY, "linear", burn_in=0)


@pytest.fixture(scope="module")
def across() -> AcrossFit:
    return fit_across(
        rate_grid(0.6, rates=RATES[:2], noise_sd=0.002),
        burn_in=0,
        exposure="rate_power",
        n_starts=16,
    )


@pytest.mark.parametrize("law", [OPENORCA, NEWS], ids=["OpenOrca", "News"])
@pytest.mark.parametrize(("rank", "step"), [(8, 50), (16, 117), (64, 200), (256, 260)])
def test_table_1_is_answered_backwards(law: PaperLaw, rank: int, step: int) -> None:
    """Against the paper's own formula, solved for N and for P by hand."""
    found = fit(grid(law, steps=FEW_STEPS))
    params = rank * LLAMA_2_7B_PARAMS_PER_RANK
    allowed = law.forgetting(params, step + 0.5)
    inner = ((law.s_f_ft - allowed) / law.c_f_ft - law.s_ft) / law.c_ft
    left = inner ** (1 / law.rho) - (law.a_f / params) ** law.alpha_f
    assert law.b_f * left ** (-1 / law.beta_f) == pytest.approx(step + 0.5)
    by_step = largest_step(found, rank=rank, max_forgetting=allowed)
    assert by_step.value.at == step
    allowed = law.forgetting(params * (rank + 0.5) / rank, step)
    by_rank = largest_rank(found, step=step, max_forgetting=allowed)
    assert by_rank.axis == "rank"
    assert by_rank.value.at == rank


@settings(max_examples=10, deadline=None)
@given(rank=st.integers(8, 256), step=st.integers(50, 260))
def test_back_and_forth(joint: LawFit, rank: int, step: int) -> None:
    there = predict(joint, rank=rank, step=step).value
    assert largest_step(joint, rank=rank, max_forgetting=there).value.at == step
    assert largest_rank(joint, step=step, max_forgetting=there).value.at == rank


@pytest.mark.parametrize("allowed", [0.80, 0.85])
def test_every_smaller_step_keeps_the_limit_and_the_next_does_not(
    joint: LawFit, allowed: float
) -> None:
    """By looking at every step and every rank."""
    steps = [predict(joint, rank=32, step=step) for step in range(1, 401)]
    ranks = [predict(joint, rank=rank, step=100) for rank in range(1, 301)]
    for asked, everything in (
        (largest_step(joint, rank=32, max_forgetting=allowed, max_step=400), steps),
        (largest_rank(joint, step=100, max_forgetting=allowed, max_rank=300), ranks),
    ):
        by_value = [i + 1 for i, one in enumerate(everything) if one.value <= allowed]
        uppers = [one.pi95[1] for one in everything if one.pi95 is not None]
        by_upper = [i + 1 for i, upper in enumerate(uppers) if upper <= allowed]
        assert asked.value.at == by_value[-1]
        assert asked.safe.at == by_upper[-1]
        assert asked.safe.at < asked.value.at
        assert asked.value.prediction == everything[int(asked.value.at) - 1]


def test_more_forgetting_allows_more(joint: LawFit, line: LawFit) -> None:
    limits = [0.74 + 0.03 * i for i in range(6)]

    def answers(ask: Callable[[float], Inverse], name: str) -> list[float]:
        found = [getattr(ask(limit), name).at for limit in limits]
        assert sum(at is not None for at in found) > 2
        return [at for at in found if at is not None]

    for name in ("value", "safe"):
        for ask in (
            lambda limit: largest_step(joint, rank=16, max_forgetting=limit),
            lambda limit: largest_rank(joint, step=100, max_forgetting=limit),
        ):
            found = answers(ask, name)
            assert found == sorted(found)
        losses = answers(lambda limit: lowest_loss(line, max_forgetting=limit), name)
        assert losses == sorted(losses, reverse=True)


def test_the_line_backwards(line: LawFit) -> None:
    asked = lowest_loss(line, max_forgetting=0.85)
    c, s = line.values
    assert asked.value.at == pytest.approx((s - 0.85) / c)
    assert asked.safe.at is not None
    assert asked.value.at is not None
    assert asked.safe.at > asked.value.at
    there = predict(line, ft_loss=asked.safe.at)
    assert there.pi95 is not None
    assert there.pi95[1] == pytest.approx(0.85, abs=1e-9)
    assert not asked.value.extrapolating
    far = lowest_loss(line, max_forgetting=1.2)
    assert far.value.extrapolating
    assert lowest_loss(line, max_forgetting=1e4).value.outcome == "never_reached"
    lifted = fit([replace(p, ce_soft=(p.ce_soft or 0) + 9) for p in NOISY], "linear")
    assert lowest_loss(lifted, max_forgetting=0.85).value.outcome == "always_above"


def test_a_line_that_rises_allows_every_loss_or_none() -> None:
    rising = fit([replace(p, ce_soft=2 * p.ft_loss) for p in NOISY], "linear")
    assert lowest_loss(rising, max_forgetting=1.0).value.outcome == "never_reached"
    above = fit([replace(p, ce_soft=5 + p.ft_loss) for p in NOISY], "linear")
    assert lowest_loss(above, max_forgetting=1.0).value.outcome == "always_above"


def test_beyond_the_domain_is_marked_and_the_search_ends(joint: LawFit) -> None:
    asked = largest_step(joint, rank=32, max_forgetting=0.95)
    assert asked.value.at is not None
    assert 260 < asked.value.at < 2600
    assert asked.value.extrapolating
    assert asked.value.prediction is not None
    assert asked.value.prediction.distances["step"] > 0
    never = largest_step(joint, rank=32, max_forgetting=2.0)
    assert (never.value.outcome, never.value.at) == ("never_reached", None)
    assert never.value.reason is not None
    assert never.value.reason.startswith("never reached within step 2600")
    assert never.value.extrapolating  # so far is the search's end
    assert never.searched == (1, 2600)
    nearer = largest_step(joint, rank=32, max_forgetting=0.95, max_step=300)
    assert nearer.value.outcome == "never_reached"
    further = largest_rank(joint, step=100, max_forgetting=0.95, max_rank=10**6)
    assert further.value.at is not None
    assert further.value.at > 2560
    too_much = largest_rank(joint, step=260, max_forgetting=0.75)
    assert too_much.value.outcome == too_much.safe.outcome == "always_above"
    assert too_much.value.at is None
    assert too_much.value.reason == ("forgetting is above 0.75 nats at every rank from 1 to 2560")


def test_forgetting_that_falls_has_no_largest_step() -> None:
    falling = fit(NOISY, metric="ce_hard")
    asked = largest_step(falling, rank=32, max_forgetting=1.3)
    assert asked.value.outcome == "never_reached"
    assert asked.value.reason is not None
    assert "falls with step" in asked.value.reason
    assert largest_step(falling, rank=32, max_forgetting=0.5).value.outcome == "always_above"


def test_few_runs_give_no_safe_answer() -> None:
    points = [replace(point, run=str((point.rank or 0) > 32)) for point in NOISY]
    bare, bare_line = fit(points), fit(points, "linear")
    for asked in (
        largest_step(bare, rank=32, max_forgetting=0.85),
        lowest_loss(bare_line, max_forgetting=0.85),
    ):
        assert asked.value.outcome == "found"
        assert asked.safe.outcome == "no_interval"
        assert asked.safe.at is None


def test_without_a_common_size_the_answer_is_in_parameters(joint: LawFit) -> None:
    by_rank = largest_rank(joint, step=100, max_forgetting=0.85)
    unsized = replace(joint, params_per_rank=None)
    asked = largest_rank(unsized, step=100, max_forgetting=0.85)
    assert asked.axis == "trainable_params"
    assert asked.value.at is not None
    assert by_rank.value.at is not None
    assert by_rank.value.at == asked.value.at // LLAMA_2_7B_PARAMS_PER_RANK
    with pytest.raises(BadQuery) as caught:
        largest_rank(unsized, step=100, max_forgetting=0.85, max_rank=8)
    assert caught.value.field == "max_rank"


@pytest.mark.parametrize("rate", [2e-5, 3e-5, 1e-4])
def test_a_law_across_rates_backwards(across: AcrossFit, rate: float) -> None:
    for step in (60, 133, 260):
        there = predict_across(across, rank=32, step=step, learning_rate=rate).value
        asked = largest_step(across, rank=32, max_forgetting=there, learning_rate=rate)
        assert asked.value.at == step
        assert asked.safe.at is not None
        assert asked.safe.at < step
        by_rank = largest_rank(across, step=step, max_forgetting=there, learning_rate=rate)
        assert by_rank.value.at == 32
    assert asked.value.extrapolating is (rate > RATES[1])


def test_half_the_steps_at_twice_the_cumulated_rate() -> None:
    law = fit_across(rate_grid(1.0, rates=RATES[:2]), burn_in=0, n_starts=16)
    slow = largest_step(law, rank=32, max_forgetting=0.8, learning_rate=2e-5)
    fast = largest_step(law, rank=32, max_forgetting=0.8, learning_rate=4e-5)
    assert slow.value.at is not None
    assert fast.value.at == slow.value.at // 2


def test_units_do_not_matter() -> None:
    def scaled(point: Point) -> Point:
        return replace(
            point, trainable_params=point.trainable_params * 3, rank=point.rank, step=point.step * 2
        )

    once, twice = fit(NOISY, burn_in=0), fit([scaled(point) for point in NOISY], burn_in=0)
    for limit in (0.8, 0.85):
        one = largest_step(once, rank=16, max_forgetting=limit)
        two = largest_step(twice, rank=16, max_forgetting=limit)
        assert one.value.at is not None
        assert one.safe.at is not None
        assert two.value.at == pytest.approx(2 * one.value.at, abs=2)
        assert two.safe.at == pytest.approx(2 * one.safe.at, abs=2)


def test_the_answer_is_json(joint: LawFit, line: LawFit) -> None:
    for asked in (
        largest_step(joint, rank=32, max_forgetting=0.85),
        largest_step(joint, rank=32, max_forgetting=5.0),
        lowest_loss(line, max_forgetting=0.85),
    ):
        body = json.loads(json.dumps(asked.to_json(), allow_nan=False))
        assert body["value"]["at"] == asked.value.at
        assert body["safe"]["outcome"] == asked.safe.outcome


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"rank": 8, "max_forgetting": -0.1}, "max_forgetting"),
        ({"rank": 8, "max_forgetting": math.nan}, "max_forgetting"),
        ({"rank": 8, "max_forgetting": math.inf}, "max_forgetting"),
        ({"max_forgetting": 0.8}, "trainable_params"),
        ({"rank": 0, "max_forgetting": 0.8}, "trainable_params"),
        ({"rank": 8, "trainable_params": 7, "max_forgetting": 0.8}, "rank"),
        ({"trainable_params": math.nan, "max_forgetting": 0.8}, "trainable_params"),
        ({"rank": 8, "max_forgetting": 0.8, "max_step": 0}, "max_step"),
        ({"rank": 8, "max_forgetting": 0.8, "max_step": 10**16}, "max_step"),
        ({"rank": 8, "max_forgetting": 0.8, "learning_rate": 1e-4}, "learning_rate"),
    ],
)
def test_what_largest_step_refuses(joint: LawFit, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(BadQuery) as caught:
        largest_step(joint, **asked)
    assert caught.value.field == field


def test_what_the_others_refuse(joint: LawFit, line: LawFit, across: AcrossFit) -> None:
    refused: list[tuple[Callable[[], Inverse], str]] = [
        (lambda: largest_rank(joint, step=math.nan, max_forgetting=0.8), "step"),
        (lambda: largest_rank(joint, step=-1, max_forgetting=0.8), "step"),
        (lambda: largest_rank(joint, step=10, max_forgetting=0.8, max_rank=-1), "max_rank"),
        (lambda: largest_step(line, rank=8, max_forgetting=0.8), "law"),
        (lambda: largest_step(fit(NOISY, metric="ft_loss"), rank=8, max_forgetting=0.8), "law"),
        (lambda: lowest_loss(joint, max_forgetting=0.8), "law"),
        (lambda: lowest_loss(line, max_forgetting=math.nan), "max_forgetting"),
        (lambda: largest_step(across, rank=8, max_forgetting=0.8), "learning_rate"),
        (
            lambda: largest_rank(across, step=9, max_forgetting=0.8, learning_rate=math.nan),
            "learning_rate",
        ),
    ]
    for ask, field in refused:
        with pytest.raises(BadQuery) as caught:
            ask()
        assert caught.value.field == field


def test_a_law_of_the_updates_norm_is_not_asked_for_steps() -> None:
    law = fit_across(
        rate_grid(None, rates=RATES[:2]), burn_in=0, exposure="delta_norm", n_starts=16
    )
    with pytest.raises(BadQuery) as caught:
        largest_step(law, rank=8, max_forgetting=0.8)
    assert caught.value.field == "law"
