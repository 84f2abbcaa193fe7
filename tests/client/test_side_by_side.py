"""Pareto marks and differences from a result's pairs, without a service."""

from itertools import combinations
from typing import Any

import pytest
from forgetting_client.command.compare import page
from forgetting_client.command.side_by_side import difference, pareto, rows
from rich.console import Console

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


LAW = {"residual": -0.01234, "z": -12.3}
LONG = "./runs/2026-11-25/a-name-as-people-give-them/with/many/folders/checkpoint-000140"
JOB = "job_01M8934Y88R97VEZF726FCTJ4W:140"


@pytest.mark.parametrize("width", [100, 80])
def test_the_page_fits_a_terminal_and_nothing_is_lost(width: int) -> None:
    result = compared((2.34567, 0.312345), (1.98765, 0.123456), (2.0, 0.1234))
    result["checkpoints"][0].update(rank=4096, step=1_000_000)
    told = Console(width=width, markup=False, highlight=False)
    with told.capture() as capture:
        for part in page(rows(result, [LONG, JOB, "./c"], [LAW, None, LAW]), result):
            told.print(part, soft_wrap=isinstance(part, str))
    said = capture.get()
    measured, beside, _ = said.split("\n\n")
    lines = beside.splitlines()
    assert all(len(line.rstrip()) <= width for line in [*measured.splitlines(), *lines])
    names = "".join(line[lines[0].index("adapter") :].strip() for line in lines)
    assert LONG in names
    assert JOB in names
    assert "…" not in said
    for wanted in ("4,096", "1,000,000", "-0.012 (z -12.3)", "dominated by 2", "0.3123"):
        assert wanted in said, said
