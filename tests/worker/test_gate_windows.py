"""Which windows a gate reads, and what it may know when it decides: only what it has scored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.laws.gate import Gate
from service.laws.order import order
from service.laws.sequential import Indices
from service.laws.statistic import Check
from worker.gate import score
from worker.scored import Batch, Scored
from worker.windows import Windows

N, SIZE = 400, 7


def windows() -> Windows:
    return Windows(
        ids=np.zeros(N * (SIZE + 1), np.int32),
        starts=np.arange(N + 1) * (SIZE + 1),
        scored=np.tile([False] + [True] * SIZE, N),
        document=np.zeros(N, np.int32),
        first=np.zeros(N, np.int64),
        begins_with_bos=False,
        context=SIZE + 1,
    )


class Reader:
    """Counts, and refuses every window but those that `allowed` names next, and any twice."""

    def __init__(self, mean: float) -> None:
        self.values = np.random.default_rng(3).gamma(4.0, mean / 4.0, (N, SIZE))
        self.asked: list[int] = []
        self.allowed: Callable[[], Indices] | None = None

    def read(self, chosen: Indices) -> Batch:
        if self.allowed is not None:
            assert np.array_equal(chosen, self.allowed()[: len(chosen)])
        assert not set(chosen.tolist()) & set(self.asked)
        self.asked += chosen.tolist()
        return Batch(chosen, {"kl": self.values[chosen].ravel()}, 0, len(chosen), 0.0)


def deciding(limit: float, *, text: str = "question", exhaustive: bool = False) -> Gate:
    check = Check("kl", "kl", fail_above=limit)
    sizes = np.full(N, SIZE)
    return Gate([check], sizes, alpha=0.05, order=order(text, N), exhaustive=exhaustive)


def run(gate: Gate, reader: Reader, folder: Path, batch: int = 8) -> list[int]:
    reader.allowed = lambda: gate.next_windows(N)
    looks: list[int] = []
    scored = Scored(folder, ["question"], batch_windows=batch)
    score(gate, reader.read, scored, windows(), lambda done, total: looks.append(done))
    return looks


@pytest.mark.parametrize(("limit", "verdict"), [(0.05, "fail"), (0.5, "pass")])
def test_reading_ends_with_the_batch_that_decides(
    tmp_path: Path, limit: float, verdict: str
) -> None:
    reader, gate = Reader(0.1), deciding(limit)
    looks = run(gate, reader, tmp_path / "a")
    assert gate.outcome().verdict == verdict
    assert len(reader.asked) == gate.n_scored == looks[-1] < N
    assert reader.asked == order("question", N)[: gate.n_scored].tolist()
    # One batch less, and nothing would have been decided.
    undecided = deciding(limit)
    for start in range(0, gate.n_scored - 8, 8):
        batch = order("question", N)[start : start + 8]
        undecided.observe(batch, [{"kl": reader.values[window]} for window in batch])
    assert not undecided.done


def test_what_lies_in_other_windows_changes_nothing(tmp_path: Path) -> None:
    reader = Reader(0.1)
    run(deciding(0.05), reader, tmp_path / "a")
    changed = Reader(0.1)
    others = np.setdiff1d(np.arange(N), reader.asked)
    changed.values[others] = np.nan
    gate = deciding(0.05)
    run(gate, changed, tmp_path / "b")
    assert changed.asked == reader.asked
    assert gate.outcome().verdict == "fail"


def test_the_same_question_stops_at_the_same_window_and_another_elsewhere(tmp_path: Path) -> None:
    asked = []
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        reader = Reader(0.1)
        run(deciding(0.09, text=text), reader, tmp_path / name)
        asked.append(reader.asked)
    assert asked[0] == asked[1] != asked[2]


def test_a_gate_that_needs_everything_is_not_ended_by_a_decision(tmp_path: Path) -> None:
    reader, gate = Reader(0.1), deciding(0.05, exhaustive=True)
    run(gate, reader, tmp_path / "a")
    assert len(reader.asked) == N
    assert gate.outcome().checks[0].reason == "every window scored"


def test_windows_out_of_order_are_refused(tmp_path: Path) -> None:
    """A reader that picks the windows that it likes is found out, even if it scores them well."""
    reader, gate = Reader(0.1), deciding(0.05)

    def picks(chosen: Indices) -> Batch:
        return reader.read(chosen[::-1])

    scored = Scored(tmp_path / "a", ["question"], batch_windows=8)
    with pytest.raises(ValueError, match="not the next in the order"):
        score(gate, picks, scored, windows(), lambda done, total: None)


def test_a_peek_ahead_is_caught(tmp_path: Path) -> None:
    """The counting reader is no decoration: a gate that reads one window more than named fails."""
    reader, gate = Reader(0.1), deciding(0.05)
    reader.allowed = lambda: gate.next_windows(8)

    def peeks(chosen: Indices) -> Batch:
        reader.read(np.append(chosen, order("question", N)[gate.n_scored + 8]))
        return reader.read(chosen)

    scored = Scored(tmp_path / "a", ["question"], batch_windows=8)
    with pytest.raises(AssertionError):
        score(gate, peeks, scored, windows(), lambda done, total: None)


class Interrupted(Exception):
    pass


def test_resumed_anywhere_it_ends_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole, gate = Reader(0.1), deciding(0.1)
    run(gate, whole, tmp_path / "whole")
    for stop in (1, 3, 7):
        parts = Reader(0.1)
        n_batches = 0

        def told(done: int, total: int, stop: int = stop) -> None:
            nonlocal n_batches
            n_batches += done > 0
            if n_batches == stop:
                raise Interrupted

        folder = tmp_path / f"parts-{stop}"
        scored = Scored(folder, ["question"], batch_windows=8)
        with pytest.raises(Interrupted):
            score(deciding(0.1), parts.read, scored, windows(), told)
        resumed = deciding(0.1)
        run(resumed, parts, folder, batch=16)  # and its batches stay as they were
        assert parts.asked == whole.asked
        assert resumed.outcome().to_json() == gate.outcome().to_json()


def test_a_torn_batch_is_scored_again_and_another_question_from_its_start(tmp_path: Path) -> None:
    reader, gate = Reader(0.1), deciding(0.1)
    run(gate, reader, tmp_path)
    n = len(reader.asked) // 8
    assert Scored(tmp_path, ["question"], batch_windows=8).n_resumed == n
    torn = tmp_path / "batch-00001.npz"
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 1
    torn.write_bytes(content)
    assert Scored(tmp_path, ["question"], batch_windows=8).n_resumed == 1
    either = Scored(tmp_path, ["another", "question"], batch_windows=8)
    assert (either.chosen, either.n_resumed) == (1, 1)
    assert Scored(tmp_path, ["another"], batch_windows=8).n_resumed == 0
    assert not torn.exists()
