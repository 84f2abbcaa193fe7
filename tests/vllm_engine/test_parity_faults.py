"""Faults planted in vLLM's rows and scores: the probe sees each, and passes what is right."""

from pathlib import Path

import numpy as np
import pytest

from tests.vllm_engine.row_files import row_files
from worker.adapter import attached
from worker.model import Base
from worker.pace import Pace
from worker.parity import Parity
from worker.score import BasePass, Scores
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Pass, Tokens
from worker.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore")


class Bench:
    """One engine, its base rows, and what the probe says of an adapter's scores."""

    def __init__(
        self,
        engine: Engine,
        base: Base,
        windows: Windows,
        tokens: Tokens,
        files: dict[str, np.ndarray],
    ) -> None:
        self.engine, self.base, self.tokens, self.files = engine, base, tokens, files
        self.parity = Parity(base, windows)

    def score(self, adapter: Path) -> Scores:
        return self.engine.score(self.tokens, self.files, adapter, route="identity", chunk=64)

    def check(self, scores: Scores, meant: Path) -> dict:
        base_pass = BasePass(
            self.files, "identity", self.parity._head, Pace(512, 64), 0.0, 0.0, 1, forward_tokens=0
        )
        with attached(self.base.model, meant) as model:
            return self.parity.check(model, scores, base_pass)


@pytest.fixture
def bench(engine: Engine, base: Base, windows: Windows, tokens: Tokens, tmp_path: Path) -> Bench:
    files = row_files(tmp_path, tokens, 128, "identity")
    engine.fill(tokens, files, route="identity", chunk=64)
    return Bench(engine, base, windows, tokens, files)


def test_right_scores_pass(bench: Bench, models: Path) -> None:
    for name in ("a", "b", "zero"):
        found = bench.check(bench.score(models / name), models / name)
        assert not found["failed"], found
        assert found["max_abs_kl"] < 1e-4
        assert found["n_windows"] == 6


def test_one_wrong_row_of_e(bench: Bench, models: Path) -> None:
    vectors = bench.files["vectors"]
    vectors[[3, 4]] = vectors[[4, 3]]
    assert bench.check(bench.score(models / "a"), models / "a")["failed"]


def test_another_adapter_than_was_asked_for(bench: Bench, models: Path) -> None:
    scores = bench.score(models / "a")
    assert bench.check(scores, models / "b")["failed"]
    assert bench.check(scores, models / "zero")["failed"]


def test_base_rows_made_under_the_adapter(bench: Bench, models: Path) -> None:
    """As an engine does that gives rows without an adapter the last one's slot."""
    task = Pass(bench.tokens, bench.files, fills=True, route="identity", chunk=64)
    with bench.engine._running(task, models / "a"):
        bench.engine._run(bench.tokens, range(28), lambda done, total: None)
    scores = bench.score(models / "a")
    assert abs(scores["kl"]).max() < 1e-5  # it forgot nothing, it seems
    assert bench.check(scores, models / "a")["failed"]
