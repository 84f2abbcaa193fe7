"""Pareto marks and differences from a result's pairs, without a service."""

from itertools import combinations
from typing import Any

import pytest
from forgetting_client.command.side_by_side import difference, pareto, rows

from tests.client.measured import measured

HALF = 0.01
"""Half an interval's width, of every difference."""


def compared(*found: tuple[float | None, float], half: float | None = HALF) -> dict[str, Any]:
    """A result of candidates with (held-out loss, KL)."""
    result = measured(*(kl for _, kl in found))
    for one, (heldout, _) in zip(result["checkpoints"], found, strict=True):
        one["ft_loss"]["heldout"] = heldout

    def near(a: float | None, b: float | None) -> Any:
        if a is None or b is None:
            return None
        gap = a - b
        return {"value": gap, "ci95": None if half is None else [gap - half, gap + half]}

    result["pairs"] = [
        {
            "a": a,
            "b": b,
            "kl": near(found[a][1], found[b][1]),
            "same_top": near(0.9, 0.9),
            "heldout": near(found[a][0], found[b][0]),
        }
        for a, b in combinations(range(len(found)), 2)
    ]
    return result


@pytest.mark.parametrize(
    ("found", "marks"),
    [
        ([(2.0, 0.1), (1.0, 0.3)], ["best trade", "best trade"]),
        ([(2.0, 0.3), (1.0, 0.1)], ["dominated", "best trade"]),
        ([(2.0, 0.3), (1.0, 0.295)], ["not told apart", "best trade"]),
        ([(1.0, 0.1), (1.0, 0.1)], ["best trade", "best trade"]),
        ([(1.0, 0.1), (2.0, 0.2), (1.5, 0.3)], ["best trade", "dominated", "dominated"]),
        ([(None, 0.1), (1.0, 0.2)], [None, None]),
    ],
)
def test_marks(found, marks) -> None:
    assert [mark for mark, _ in pareto(compared(*found))] == marks


def test_without_intervals_nothing_is_dominated() -> None:
    result = compared((2.0, 0.3), (1.0, 0.1), half=None)
    assert [mark for mark, _ in pareto(result)] == ["not told apart", "best trade"]


def test_a_difference_turns_with_its_ends() -> None:
    result = compared((2.0, 0.3), (1.0, 0.1))
    assert difference(result, 0, 1, "kl")["ci95"] == pytest.approx([0.19, 0.21])
    assert difference(result, 1, 0, "kl")["value"] == pytest.approx(-0.2)
    assert difference(result, 1, 0, "kl")["ci95"] == pytest.approx([-0.21, -0.19])


def test_rows_name_the_best_and_what_dominates() -> None:
    found = rows(compared((2.0, 0.3), (1.0, 0.1)), ["./a", "./b"], [None, None])
    assert [row.dominated_by for row in found] == ["./b", None]
    assert found[1].more_than_best is None
    assert found[0].more_than_best is not None
    assert found[0].more_than_best["value"] == pytest.approx(0.2)
