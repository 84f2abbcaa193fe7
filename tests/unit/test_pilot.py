"""What a sweep runs: its grid, a pilot's part of it, and the rest after a pilot."""

from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from service.cost import Cost, cost_of, share
from service.errors import InvalidSpec
from service.pilot import MAX_SHARE, Pilot, children_of, choose, far_corner, rest_of
from service.recipe import recipe_of
from service.schedule import measured_steps
from service.schemas.spec import FinetuneSpec, SweepSpec
from tests.results import provenance

PAPER = [8, 16, 32, 64, 128, 256]


def sweep(**fields: Any) -> SweepSpec:
    body = {"base_model": "m", "dataset": {"path": "rows.jsonl"}, "ranks": PAPER, "pilot": True}
    return SweepSpec.model_validate({"type": "sweep", **body, **fields})


def run(child: FinetuneSpec) -> tuple[int, float, int]:
    return child.training.seed, child.training.learning_rate, child.training.lora.r


def steps(child: FinetuneSpec) -> list[int]:
    return measured_steps(child.training, child.evaluation)


def test_three_seeds_by_default_and_the_first_one_spans_the_law() -> None:
    whole = sweep(pilot=False, learning_rates=[1e-4, 1e-3])
    assert whole.seeds == [17, 18, 19]
    grid = children_of(whole)
    assert [run(child) for child in grid] == [
        (seed, rate, rank) for seed in (17, 18, 19) for rate in (1e-4, 1e-3) for rank in PAPER
    ]


def test_the_default_pilot() -> None:
    pilot = choose(sweep())
    assert pilot == Pilot((8, 16, 32), (17, 18), (52, 65, 104, 130), pytest.approx(6 / 36))
    children = children_of(sweep())
    assert [run(child)[::2] for child in children] == [
        (seed, rank) for seed in (17, 18) for rank in (8, 16, 32)
    ]
    assert all(steps(child) == [52, 65, 104, 130] for child in children)
    assert all(child.training.max_steps == 130 for child in children)
    assert far_corner(sweep()) == (256, 260)


@given(
    n_ranks=st.integers(3, 12),
    n_seeds=st.integers(1, 5),
    n_rates=st.integers(1, 3),
    max_steps=st.integers(5, 2000),
    schedule=st.sampled_from(["constant", "linear", "cosine", "constant_with_warmup"]),
)
def test_a_pilot_keeps_to_its_budget_and_can_carry_a_law(
    n_ranks: int, n_seeds: int, n_rates: int, max_steps: int, schedule: str
) -> None:
    asked = sweep(
        ranks=[2**i for i in range(n_ranks)],
        seeds=list(range(n_seeds)),
        learning_rates=[10.0**-i for i in range(n_rates)],
        training={"max_steps": max_steps, "lr_scheduler_type": schedule},
    )
    try:
        pilot = choose(asked)
    except InvalidSpec:
        reject()  # what is refused, and why, stands below
    children, grid = children_of(asked), asked.grid()
    part, whole = cost_of(children), cost_of(grid)
    assert share(part, whole) == pytest.approx(pilot.share_of_cost)
    assert pilot.share_of_cost <= MAX_SHARE
    for rate in set(asked.learning_rates or []):
        mine = [child for child in children if child.training.learning_rate == rate]
        assert len(mine) >= 3
        assert len({child.training.lora.r for child in mine}) >= 3
    assert all(len(steps(child)) >= 3 for child in children)
    assert pilot.steps[0] >= 0.2 * max_steps
    assert {s for child in children for s in steps(child)} <= set(steps(grid[0]))
    if schedule in ("linear", "cosine"):
        assert pilot.steps[-1] == max_steps


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(9, 99), st.integers(9, 99), st.floats(0, 1e4)
)
def test_no_price_of_a_pass_takes_a_share_above_its_bound(
    a: int, b: int, c: int, d: int, price: float
) -> None:
    part, whole = Cost(a, b), Cost(c, d)
    true = (a + price * b) / (c + price * d)
    assert true <= share(part, whole) * (1 + 1e-12)


def test_a_pilot_shares_its_sweeps_recipe() -> None:
    for schedule in ("constant", "cosine"):
        asked = sweep(training={"lr_scheduler_type": schedule})
        ours = {str(recipe_of(child, provenance())) for child in children_of(asked)}
        assert ours == {str(recipe_of(child, provenance())) for child in asked.grid()}


def test_the_rest_measures_every_step_of_the_sweep_once() -> None:
    for schedule in ("constant", "cosine"):
        asked = sweep(training={"lr_scheduler_type": schedule})
        done = children_of(asked)
        rest = rest_of(asked, done)
        wanted = sorted((run(child), step) for child in asked.grid() for step in steps(child))
        got = sorted((run(child), step) for child in [*done, *rest] for step in steps(child))
        assert got == wanted
        assert all(child.training.max_steps == 260 for child in rest)
        assert len(rest) == (18 if schedule == "constant" else 15)


def test_what_of_the_pilot_failed_is_in_the_rest() -> None:
    done = children_of(sweep())
    rest = {run(child): child for child in rest_of(sweep(), done[1:])}
    assert steps(rest[run(done[0])]) == steps(sweep().grid()[0])
    assert steps(rest[run(done[1])]) == [82, 164, 207, 260]
    assert rest_of(sweep(), []) == sweep().grid()


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"ranks": [8, 16]}, "ranks", "2 ranks"),
        ({"ranks": [8, 8, 16, 16]}, "ranks", "2 ranks"),
        ({"evaluation": {"at": "final"}}, "evaluation.at", "1 measured steps"),
        ({"training": {"checkpoints": [9, 200, 260]}}, "training.checkpoints", "2 measured steps"),
        ({"ranks": [2, 4, 8], "seeds": [1]}, "pilot", "38%"),
    ],
    ids=str,
)
def test_a_pilot_that_cannot_be_is_refused_with_the_numbers(
    fields: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(InvalidSpec, match=said) as caught:
        choose(sweep(**fields))
    assert caught.value.param == param
