"""Plans: what a search of every whole step and rank finds, and what is said where nothing fits."""

import json
import math
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from service.laws import BadQuery, LawFit, fit, predict
from service.laws.across import fit_across
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK as PARAMS_PER_RANK
from service.laws.forgetting import NEWS, OPENORCA
from service.laws.plan import Option, plan
from service.laws.predict import expected
from service.laws.quantities import Metric
from tests.unit.paper_grid import FEW_STEPS, grid
from tests.unit.rate_grid import RATES, rate_grid

RANKS = (8, 16, 32, 64, 128, 256)
NOISY = [
    replace(point, ft_loss=point.ft_loss + 0.002 * math.sin(37.0 * index))
    for index, point in enumerate(grid(OPENORCA, steps=FEW_STEPS, noise_sd=0.003))
]


@pytest.fixture(scope="module")
def forgetting() -> LawFit:
    return fit(NOISY, burn_in=0)


@pytest.fixture(scope="module")
def tuning() -> LawFit:
    return fit(NOISY, burn_in=0, metric="ft_loss")


class Row(NamedTuple):
    """One rank and step; `lost` is forgetting. Sorts by forgetting."""

    lost: float
    rank: int
    step: int
    loss: float
    worst_loss: float


@pytest.fixture(scope="module")
def everything(forgetting: LawFit, tuning: LawFit) -> list[Row]:
    """Every rank at every whole step of the domain."""
    rows = []
    for rank in RANKS:
        for step in range(50, 261):
            lost = expected(forgetting, trainable_params=rank * PARAMS_PER_RANK, step=step)
            loss = predict(tuning, rank=rank, step=step)
            assert loss.pi95 is not None
            rows.append(Row(float(lost), rank, step, loss.value, loss.pi95[1]))
    return rows


@pytest.mark.parametrize("max_ft_loss", [0.68, 0.70, 0.72])
def test_the_least_forgetting_by_brute_force(
    forgetting: LawFit, tuning: LawFit, everything: list[Row], max_ft_loss: float
) -> None:
    made = plan(forgetting, tuning, max_ft_loss=max_ft_loss, limit=50)
    reaching = [row for row in everything if row.loss <= max_ft_loss]
    assert made.best is not None
    best = made.best
    assert (best.forgetting.value, best.rank, best.step) == min(reaching)[:3]
    assert made.options[0] == best
    assert made.safest is not None
    sure = min(row for row in everything if row.worst_loss <= max_ft_loss)
    assert (made.safest.rank, made.safest.step) == (sure.rank, sure.step)
    for rank in RANKS:
        first = min((row for row in reaching if row.rank == rank), default=None)
        offered = [one.step for one in made.options if one.rank == rank and one.meets]
        assert (min(offered) if offered else None) == (first.step if first else None)


def test_the_paper_on_openorca() -> None:
    """Exact laws, by the paper's formulas: at L_ft 0.68 the step each rank needs."""
    exact = grid(OPENORCA, steps=FEW_STEPS)
    made = plan(
        fit(exact, burn_in=0), fit(exact, burn_in=0, metric="ft_loss"), max_ft_loss=0.68, limit=20
    )
    for rank in RANKS:
        params = rank * PARAMS_PER_RANK
        needed = next(n for n in range(1, 10_000) if OPENORCA.ft_loss(params, n) <= 0.68)
        option = next(one for one in made.options if one.rank == rank)
        assert option.step == pytest.approx(needed, abs=1)
        assert option.trainable_params == params
        truth = OPENORCA.forgetting(params, option.step)
        assert option.forgetting.value == pytest.approx(truth, abs=1e-5)
        assert option.cost == option.step / 260


def test_the_lowest_loss_within_the_forgetting_allowed(
    forgetting: LawFit, tuning: LawFit, everything: list[Row]
) -> None:
    made = plan(forgetting, tuning, max_forgetting=0.85)
    best = min((row for row in everything if row.lost <= 0.85), key=lambda row: row.loss)
    assert made.best is not None
    assert (made.best.rank, made.best.step) == (best.rank, best.step)
    assert "the lowest loss that forgets at most 0.85" in made.answer
    losses = [option.ft_loss.value for option in made.options if option.meets]
    assert losses == sorted(losses)


def test_both_limits_hold(forgetting: LawFit, tuning: LawFit) -> None:
    made = plan(forgetting, tuning, max_ft_loss=0.69, max_forgetting=0.86)
    assert made.best is not None
    for option in made.options:
        kept = option.ft_loss.value <= 0.69 and option.forgetting.value <= 0.86
        assert option.meets is kept
        assert option.ft_loss.pi95 is not None
        assert option.forgetting.pi95 is not None
        sure = option.ft_loss.pi95[1] <= 0.69 and option.forgetting.pi95[1] <= 0.86
        assert option.safe is sure


def test_order_and_monotony(forgetting: LawFit, tuning: LawFit) -> None:
    least = []
    for max_ft_loss in (0.67, 0.70):
        made = plan(forgetting, tuning, max_ft_loss=max_ft_loss, max_step=400, limit=50)

        def rank_of(option: Option) -> tuple[bool, bool]:
            return (not option.meets, option.extrapolating)

        assert [rank_of(o) for o in made.options] == sorted(rank_of(o) for o in made.options)
        inside = [o.forgetting.value for o in made.options if rank_of(o) == (False, False)]
        assert inside == sorted(inside)
        assert inside
        least.append(inside[0])
    assert least == sorted(least, reverse=True)
    assert made.searched_steps == (50, 400)
    few = plan(forgetting, tuning, max_ft_loss=0.70, max_step=400, limit=3)
    assert few.options == made.options[:3]


def test_a_domain_that_is_too_short_extrapolates_only_if_asked(
    forgetting: LawFit, tuning: LawFit
) -> None:
    assert plan(forgetting, tuning, max_ft_loss=0.645).fails == "max_ft_loss"
    made = plan(forgetting, tuning, max_ft_loss=0.645, max_step=1000)
    assert made.best is not None
    assert made.best.extrapolating
    assert made.best.step > 260
    assert made.answer.endswith("This lies outside the measured runs.")
    wide = plan(forgetting, tuning, max_ft_loss=0.70, ranks=[4, 1024])
    assert all(option.extrapolating for option in wide.options)
    assert wide.searched_ranks == (4, 1024)


@pytest.mark.parametrize(
    ("limits", "fails", "said"),
    [
        ({"max_ft_loss": 0.5}, "max_ft_loss", "No option reaches a fine-tuning loss of 0.5;"),
        (
            {"max_ft_loss": 0.5, "max_forgetting": 0.9},
            "max_ft_loss",
            "No option reaches a fine-tuning loss of 0.5;",
        ),
        (
            {"max_ft_loss": 0.9, "max_forgetting": 0.3},
            "max_forgetting",
            "No option forgets at most 0.3 nats per token;",
        ),
        (
            {"max_ft_loss": 0.66, "max_forgetting": 0.8},
            "both_together",
            "No option reaches a fine-tuning loss of 0.66 and forgets at most 0.8 nats per token;",
        ),
    ],
)
def test_nothing_fits(
    forgetting: LawFit,
    tuning: LawFit,
    everything: list[Row],
    limits: dict[str, float],
    fails: str,
    said: str,
) -> None:
    made = plan(forgetting, tuning, **limits)  # type: ignore[arg-type]
    assert made.best is None
    assert made.safest is None
    assert made.fails == fails
    assert made.answer.startswith(said)
    assert made.nearest is not None
    assert f"rank {made.nearest.rank} for {made.nearest.step} steps" in made.answer

    def excess(lost: float, loss: float) -> float:
        above = max(0.0, lost - limits.get("max_forgetting", math.inf))
        return above + max(0.0, loss - limits.get("max_ft_loss", math.inf))

    least = min(excess(row.lost, row.loss) for row in everything)
    got = excess(made.nearest.forgetting.value, made.nearest.ft_loss.value)
    assert got == pytest.approx(least, abs=5e-4)


def test_measured_ranks_and_the_powers_of_two_between() -> None:
    points = grid(NEWS, ranks=(6, 10, 40), steps=FEW_STEPS)
    made = plan(fit(points), fit(points, metric="ft_loss"), max_ft_loss=2.1)
    assert made.searched_ranks == (6, 8, 10, 16, 32, 40)


def test_kl_and_ce_soft_make_the_same_plan(tuning: LawFit) -> None:
    """Up to the base's entropy, 0.5 nats here."""
    metrics: tuple[Metric, ...] = ("ce_soft", "kl")
    soft, kl = (plan(fit(NOISY, burn_in=0, metric=m), tuning, max_ft_loss=0.69) for m in metrics)
    assert soft.best is not None
    assert kl.best is not None
    assert (soft.best.rank, soft.best.step) == (kl.best.rank, kl.best.step)
    assert soft.best.forgetting.value - kl.best.forgetting.value == pytest.approx(0.5, abs=1e-6)


def test_a_plan_across_learning_rates() -> None:
    points = rate_grid(1.0, rates=RATES[:2])
    laws = [
        fit_across(points, metric=metric, burn_in=0, exposure="cumulated_rate", n_starts=16)
        for metric in ("ce_soft", "ft_loss")
    ]
    made = plan(*laws, max_ft_loss=0.70, limit=50)
    assert {option.learning_rate for option in made.options} == set(RATES[:2])
    assert made.best is not None
    assert f"at learning rate {made.best.learning_rate:g}" in made.answer
    one = plan(*laws, max_ft_loss=0.70, learning_rates=[3e-5])
    assert {option.learning_rate for option in one.options} == {3e-5}
    # Only the cumulated rate counts, so rates can change nothing but the steps that it takes.
    assert one.best is not None
    assert one.best.forgetting.value == pytest.approx(made.best.forgetting.value, abs=2e-3)


def test_few_runs_make_no_option_safe() -> None:
    points = [replace(point, run=str((point.rank or 0) > 32)) for point in NOISY]
    made = plan(fit(points), fit(points, metric="ft_loss"), max_ft_loss=0.69)
    assert made.best is not None
    assert made.best.safe is None
    assert made.safest is None
    assert "95 %" not in made.answer


def test_the_answer_is_json(forgetting: LawFit, tuning: LawFit) -> None:
    made = plan(forgetting, tuning, max_ft_loss=0.69, max_step=500)
    body = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert len(body["options"]) == len(made.options)
    assert body["best"]["forgetting"]["pi95"] == list(body["best"]["forgetting"]["pi95"])
    assert set(body["options"][0]) == {
        *("rank", "trainable_params", "step", "learning_rate", "ft_loss", "forgetting"),
        *("meets", "safe", "extrapolating", "cost"),
    }


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "max_ft_loss"),
        ({"max_ft_loss": math.nan}, "max_ft_loss"),
        ({"max_ft_loss": -1.0}, "max_ft_loss"),
        ({"max_forgetting": math.inf}, "max_forgetting"),
        ({"max_ft_loss": 0.7, "ranks": []}, "ranks"),
        ({"max_ft_loss": 0.7, "ranks": [0]}, "ranks"),
        ({"max_ft_loss": 0.7, "ranks": [8.5]}, "ranks"),
        ({"max_ft_loss": 0.7, "ranks": [10**12]}, "ranks"),
        ({"max_ft_loss": 0.7, "max_step": 49}, "max_step"),
        ({"max_ft_loss": 0.7, "max_step": 10**16}, "max_step"),
        ({"max_ft_loss": 0.7, "limit": 0}, "limit"),
        ({"max_ft_loss": 0.7, "learning_rates": [1e-4]}, "learning_rates"),
    ],
)
def test_what_it_refuses(
    forgetting: LawFit, tuning: LawFit, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadQuery) as caught:
        plan(forgetting, tuning, **asked)
    assert caught.value.field == field


def test_laws_that_make_no_plan(forgetting: LawFit, tuning: LawFit) -> None:
    unnamed = [replace(point, rank=None) for point in NOISY]
    other = replace(tuning, params_per_rank=7.0)
    late = replace(tuning, domain=replace(tuning.domain, step=(500, 900)))
    for one, two, field in (
        (tuning, tuning, "forgetting_law"),
        (forgetting, forgetting, "tuning_law"),
        (fit(NOISY, "linear"), tuning, "forgetting_law"),
        (forgetting, other, "ranks"),
        (fit(unnamed), fit(unnamed, metric="ft_loss"), "ranks"),
        (forgetting, late, "tuning_law"),
    ):
        with pytest.raises(BadQuery) as caught:
            plan(one, two, max_ft_loss=0.7)
        assert caught.value.field == field
