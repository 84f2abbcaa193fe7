"""How far a sweep is, and until when."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cost import PASS_STEPS, Cost
from service.eta import Run, eta_seconds, share_done, share_of_run
from service.jobs import JobState, Phase

Q, R, S, F, C = JobState
COST = Cost(steps=100, passes=5)


def run(
    state: JobState,
    done: float = 0.0,
    seconds: float | None = None,
    *,
    start_up: float | None = 0.0,
    attempt: int = 1,
) -> Run:
    done = 1.0 if state in (S, F, C) else done
    return Run(COST, state, done, seconds, start_up, 0 if state is Q else attempt)


def units(state: JobState, phase: str | None, done: float, total: float, unit: str) -> float:
    progress = {"done": done, "total": total, "unit": unit}
    return share_of_run(state, phase, progress, COST) * COST.units


def test_a_runs_work_is_its_steps_and_its_passes() -> None:
    assert COST.units == 100 + 5 * PASS_STEPS
    assert share_of_run(Q, None, None, COST) == 0
    assert share_of_run(R, None, None, COST) == share_of_run(R, "loading", None, COST) == 0
    assert units(R, "training", 40, 100, "steps") == pytest.approx(40)
    assert share_of_run(R, "scoring_base", None, COST) * COST.units == pytest.approx(100)
    # Two of five candidates are behind it, the third is half-way through its windows.
    assert units(R, "scoring_tuned", 25, 50, "windows") == pytest.approx(
        100 + (2 + 0.25) * PASS_STEPS
    )
    assert units(R, "scoring_tuned", 25, 50, "rows") == pytest.approx(100 + 2.75 * PASS_STEPS)
    assert [share_of_run(end, None, None, COST) for end in (S, F, C)] == [1, 1, 1]


def test_a_run_never_falls_back_while_its_checkpoints_are_measured() -> None:
    seen = [units(R, "training", 100, 100, "steps"), units(R, "scoring_base", 7, 7, "windows")]
    for index in range(5):
        seen += [units(R, "scoring_tuned", 8 * index + n, 40, "windows") for n in range(1, 9)]
        seen += [units(R, "scoring_tuned", 6 * index + n, 30, "rows") for n in range(1, 7)]
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(COST.units)


@pytest.mark.parametrize(
    "progress", [None, {"done": 3, "total": 0, "unit": "x"}, {"done": 9, "total": 3, "unit": "x"}]
)
@pytest.mark.parametrize("phase", [None, *Phase])
def test_progress_that_makes_no_sense_stays_within_the_run(
    phase: str | None, progress: dict[str, float] | None
) -> None:
    assert 0 <= share_of_run(R, phase, progress, COST) <= 1


def test_the_share_weighs_runs_by_their_cost() -> None:
    short = Run(Cost(50, 0), S, 1.0, 10.0, 0.0, 1)
    long = Run(Cost(150, 0), Q, 0.0, None, None, 0)
    assert share_done([short, long]) == pytest.approx(0.25)
    assert share_done([run(F), run(R, 0.5)]) == pytest.approx(0.75)


def test_nothing_is_said_before_something_is_known() -> None:
    assert eta_seconds([run(Q), run(Q)]) is None
    assert eta_seconds([run(R, 0.0, 30.0), run(Q)]) is None
    assert eta_seconds([run(R, 0.019, 30.0), run(Q)]) is None
    assert eta_seconds([run(R, 0.02, 30.0), run(Q)]) is not None
    assert eta_seconds([run(S, seconds=60.0), run(Q)]) is None  # nobody is at it
    assert eta_seconds([run(F, seconds=1.0), run(R, 0.0, 1.0)]) is None  # a failure is no pace


def test_one_worker_after_the_other() -> None:
    """60 s a run; half of one and two whole ones are left."""
    runs = [run(S, seconds=60.0), run(R, 0.5, 30.0), run(Q), run(Q)]
    assert eta_seconds(runs) == pytest.approx(30 + 60 + 60)


def test_several_workers_share_what_waits() -> None:
    """Two at 60 s a run, 15 s and 45 s from their ends: the waiting three go at 15, 45 and 75."""
    runs = [run(R, 0.75, 45.0), run(R, 0.25, 15.0), run(Q), run(Q), run(Q)]
    assert eta_seconds(runs) == pytest.approx(75 + 60)


def test_start_up_is_no_work_and_comes_again_with_every_run() -> None:
    """20 s of loading, then 40 s of work a run; a tenth of the first is done."""
    runs = [run(R, 0.1, 24.0, start_up=20.0), run(Q), run(Q)]
    assert eta_seconds(runs) == pytest.approx(36 + 2 * 60)
    runs = [run(S, seconds=60.0, start_up=20.0), run(R, 0.0, 5.0, start_up=None)]
    assert eta_seconds(runs) == pytest.approx(15 + 40)
    assert eta_seconds([run(R, 0.0, 25.0, start_up=None), run(Q)]) is None


def test_a_second_attempt_does_not_tell_the_pace() -> None:
    """It stood still in between."""
    runs = [run(S, seconds=60.0), run(R, 0.5, 9999.0, attempt=2)]
    assert eta_seconds(runs) == pytest.approx(30)


def test_at_the_end_nothing_is_left() -> None:
    assert eta_seconds([run(S, seconds=60.0), run(F, seconds=1.0), run(C)]) == 0
    assert share_done([run(S), run(F), run(C)]) == 1


def _runs() -> st.SearchStrategy[Run]:
    return st.builds(
        Run,
        st.builds(Cost, st.integers(1, 10**6), st.integers(1, 200)),
        st.sampled_from(JobState),
        st.floats(0, 1),
        st.none() | st.floats(-1.0, 1e9),
        st.none() | st.floats(-1.0, 1e9),
        st.integers(0, 3),
    )


@given(st.lists(_runs(), max_size=12))
def test_it_is_never_negative_and_never_not_a_number(runs: list[Run]) -> None:
    left = eta_seconds(runs)
    assert left is None or (math.isfinite(left) and left >= 0)
    assert 0 <= share_done(runs) <= 1
