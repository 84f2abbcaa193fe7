"""A short chaos in every run of the tests; the long one's table stands in docs/reliability.md."""

import pytest

from tests.chaos.__main__ import chaos


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_lost_and_nothing_is_counted_twice(database: str) -> None:
    found = chaos(database, 25, 12, seed=17, limit=200)
    assert found.n_jobs == 25
    assert (found.lost, found.doubled) == (0, 0), found


def test_without_the_sweep_jobs_are_lost() -> None:
    """Control: the audit sees what the sweep mends."""
    found = chaos("sqlite", 12, 8, seed=18, limit=200, settle=10, FORGETTING_SWEEP_SECONDS="3600")
    assert found.lost > 0
