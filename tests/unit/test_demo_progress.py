"""Waiting is shown: bars on a terminal, lines in a log, and the last state is handed on."""

import io

import pytest
from rich.console import Console

from demo import progress
from demo.sweep import Child, share_done


def child(rank: int, status: str, doing: str, done: float, **more: object) -> Child:
    empty = {"n_checkpoints": 0, "kl": None, "train_loss": None, "error": None}
    return Child(
        job=f"job_{rank}", rank=rank, status=status, doing=doing, done=done, **empty | more
    )  # type: ignore[arg-type]


STATES = [
    [child(4, "queued", "", 0.0), child(8, "queued", "", 0.0)],
    [child(4, "running", "training", 0.3, train_loss=3.21), child(8, "queued", "", 0.0)],
    [
        child(4, "running", "scoring tuned", 0.8, n_checkpoints=2, kl=0.31),
        child(8, "queued", "", 0),
    ],
    [
        child(4, "succeeded", "", 1.0, n_checkpoints=6, kl=0.41),
        child(8, "failed", "", 1.0, error="training_diverged: step 7"),
    ],
]


@pytest.mark.parametrize("terminal", [True, False])
def test_every_stage_is_shown(terminal: bool) -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=120, highlight=False)
    assert progress.watch(console, iter(STATES)) == STATES[-1]
    text = said.getvalue()
    assert "rank 4" in text
    assert "forgetting 0.410 at checkpoint 6" in text
    assert "training_diverged: step 7" in text


def test_a_log_gets_a_line_only_for_news() -> None:
    said = io.StringIO()
    progress.watch(
        Console(file=said, width=120, highlight=False), iter([*STATES, STATES[-1], STATES[-1]])
    )
    lines = said.getvalue().splitlines()
    assert len(lines) == 4
    assert "training, loss 3.21" in lines[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_says_what_and_how_long(terminal: bool) -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=120, highlight=False)
    with progress.bar(console, "Drawing", total=2) as say:
        say("one", advance=1)
        say("two", advance=1)
    assert "Drawing: 0 s" in said.getvalue()


def test_a_share_grows_through_the_phases() -> None:
    def at(status: str, phase: str | None, done: float = 0.0) -> float:
        progress = {"done": done, "total": 10.0, "unit": "steps"}
        return share_done({"status": status, "phase": phase, "progress": progress})  # type: ignore[typeddict-item]

    shares = [
        at("queued", None),
        at("running", None),
        at("running", "loading"),
        at("running", "training"),
        at("running", "training", 5.0),
        at("running", "scoring_base"),
        at("running", "scoring_tuned"),
        at("running", "scoring_tuned", 9.0),
        at("succeeded", "scoring_tuned"),
    ]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert len(set(shares)) == len(shares) - 1
