"""vLLM's numbers against transformers', position by position, on the same base and adapters."""

from pathlib import Path

import numpy as np
import pytest

from tests.vllm_engine.row_files import row_files
from worker.adapter import attached
from worker.cache import Cache
from worker.divergence import Route
from worker.model import Base
from worker.score import BasePass, Scores, score_base, score_candidate
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Tokens
from worker.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM's own, of many libraries
PER_POSITION = 5e-5
ALIKE = 1e-4


def by_transformers(
    base: Base, windows: Windows, folder: Path, adapter: Path, route: Route
) -> tuple[BasePass, Scores]:
    cache = Cache(folder, max_bytes=10**9)
    found = score_base(base, windows, corpus_digest="c", route=route, cache=cache)
    with attached(base.model, adapter) as model:
        return found, score_candidate(model, windows, found)


@pytest.fixture(scope="module")
def files(engine: Engine, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The tied base's rows, by the identity."""
    made = row_files(tmp_path_factory.mktemp("rows"), tokens, 128, "identity")
    engine.fill(tokens, made, route="identity", chunk=64)
    return made


def score(engine: Engine, tokens: Tokens, files: dict, adapter: Path | None) -> Scores:
    return engine.score(tokens, files, adapter, route="identity", chunk=64)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_scores_are_those_of_transformers(
    engine: Engine,
    base: Base,
    windows: Windows,
    tokens: Tokens,
    files: dict,
    models: Path,
    tmp_path: Path,
    name: str,
) -> None:
    theirs_base, theirs = by_transformers(base, windows, tmp_path, models / name, "identity")
    ours = score(engine, tokens, files, models / name)
    nll = files["nll_base"]
    assert abs(nll - theirs_base.rows["nll_base"]).max() < PER_POSITION
    assert abs(files["h_base"] - theirs_base.rows["h_base"]).max() < PER_POSITION
    for column in ("kl", "ce_soft", "ce_hard", "nll_tuned"):
        assert abs(ours[column] - theirs[column]).max() < PER_POSITION, column
    assert ours["kl"].mean() == pytest.approx(theirs["kl"].mean(), rel=ALIKE)
    assert theirs["kl"].mean() > 1e-3
    for column in ("same_top", "same_top5"):
        assert (ours[column] == theirs[column]).mean() > 0.995


def test_both_logits_give_the_same_and_the_reverse(
    engine: Engine, tokens: Tokens, files: dict, models: Path, tmp_path: Path
) -> None:
    made = row_files(tmp_path, tokens, 128, "logits")
    engine.fill(tokens, made, route="logits", chunk=64)
    both = engine.score(tokens, made, models / "a", route="logits", chunk=64, reverse=True)
    one = score(engine, tokens, files, models / "a")
    assert both["kl"] == pytest.approx(one["kl"], abs=1e-5)
    assert both["kl_reverse"].mean() == pytest.approx(one["kl"].mean(), rel=0.5)
    assert "kl_reverse" not in one


def test_what_changes_nothing_scores_exactly_zero(
    engine: Engine, tokens: Tokens, files: dict, models: Path
) -> None:
    for adapter in (None, models / "zero"):
        assert not score(engine, tokens, files, adapter)["kl"].any()


def test_adapters_in_any_order_score_the_same(
    engine: Engine, tokens: Tokens, files: dict, models: Path
) -> None:
    def in_order(names: str) -> dict[str, np.ndarray]:
        return {name: score(engine, tokens, files, models / name)["kl"] for name in names}

    first, second = in_order("abc"), in_order("cab")
    for name in "abc":
        assert np.array_equal(first[name], second[name])
    assert not np.array_equal(first["a"], first["c"])


def test_a_part_of_the_windows(engine: Engine, tokens: Tokens, files: dict, models: Path) -> None:
    every = score(engine, tokens, files, models / "a")
    chosen = np.array([5, 1, 26])
    some = engine.score(tokens, files, models / "a", route="identity", chunk=64, windows=chosen)
    assert some["kl"] == pytest.approx(every["kl"][tokens.positions(chosen)], abs=1e-6)


def test_a_stopped_pass_leaves_nothing_behind(
    engine: Engine, tokens: Tokens, files: dict, models: Path
) -> None:
    before = score(engine, tokens, files, models / "b")

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.score(tokens, files, models / "a", route="identity", chunk=64, on_windows=stop)
    assert not score(engine, tokens, files, None)["kl"].any()
    assert np.array_equal(score(engine, tokens, files, models / "b")["kl"], before["kl"])
