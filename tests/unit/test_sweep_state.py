"""Where a sweep stands, given its children."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs import NEXT, TERMINAL, JobState, sources
from service.store.sweeps import sweep_state

Q, R, S, F, C = JobState


@pytest.mark.parametrize(
    ("children", "started", "cancel_requested", "expected"),
    [
        ({Q: 2}, False, False, Q),
        ({Q: 1, C: 1}, False, False, Q),
        ({Q: 1, S: 1}, True, False, R),
        ({R: 1, F: 5}, True, True, R),
        ({S: 1, F: 5}, True, False, S),
        ({F: 6}, True, False, F),
        ({F: 1, C: 5}, True, False, F),
        ({C: 6}, False, False, C),
        ({S: 5, C: 1}, True, False, S),
        ({S: 5, C: 1}, True, True, C),
        ({S: 6}, True, True, S),
        ({}, False, True, C),
    ],
    ids=str,
)
def test_cases(
    children: dict[JobState, int], started: bool, cancel_requested: bool, expected: JobState
) -> None:
    assert sweep_state(children, started=started, cancel_requested=cancel_requested) is expected


@given(
    st.dictionaries(st.sampled_from(JobState), st.integers(1, 9), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_it_is_over_exactly_when_every_child_is(
    children: dict[JobState, int], started: bool, cancel_requested: bool
) -> None:
    state = sweep_state(children, started=started, cancel_requested=cancel_requested)
    assert (state in TERMINAL) == (set(children) <= TERMINAL)


def test_sources_invert_the_table() -> None:
    for target in JobState:
        assert set(sources(target)) == {state for state in JobState if target in NEXT[state]}
    assert sources(JobState.RUNNING) == [JobState.QUEUED]
    assert sources(JobState.SUCCEEDED) == [JobState.RUNNING]
