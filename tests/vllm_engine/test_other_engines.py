"""Engines started anew: in pieces, short of memory, over another shape, over several workers."""

from pathlib import Path

import pytest
import torch

from service.settings import Settings
from tests.vllm_engine.row_files import row_files
from tests.vllm_engine.test_engine import ALIKE, PER_POSITION, by_transformers
from worker.model import load_base
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Tokens
from worker.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore")


def run(engine: Engine, tokens: Tokens, folder: Path, adapter: Path, width: int = 128) -> dict:
    files = row_files(folder, tokens, width, "identity")
    try:
        engine.fill(tokens, files, route="identity", chunk=64)
        found = engine.score(tokens, files, adapter, route="identity", chunk=64)
    finally:
        engine.close()
    return found | {"nll_base": files["nll_base"]}


def test_prompts_in_chunks_and_a_restarted_engine_score_the_same(
    models: Path, tokens: Tokens, tmp_path: Path
) -> None:
    place = models / "tied"
    whole = Engine(place, dtype=torch.float32, context=96, batch_tokens=512)
    first = run(whole, tokens, tmp_path / "1", models / "a")
    pieces = Engine(place, dtype=torch.float32, context=96, batch_tokens=40, chunked_prefill=True)
    second = run(pieces, tokens, tmp_path / "2", models / "a")
    for column in ("kl", "nll_tuned", "nll_base"):
        assert second[column] == pytest.approx(first[column], abs=PER_POSITION)
    assert second["kl"].mean() == pytest.approx(first["kl"].mean(), rel=ALIKE)


def test_an_untied_head(
    models: Path, settings: Settings, windows: Windows, tokens: Tokens, tmp_path: Path
) -> None:
    base = load_base("untied", None, dtype="float32", settings=settings)
    _, theirs = by_transformers(base, windows, tmp_path / "c", models / "u", "identity")
    engine = Engine(models / "untied", dtype=torch.float32, context=96, batch_tokens=512)
    ours = run(engine, tokens, tmp_path / "r", models / "u", width=64)
    assert abs(ours["kl"] - theirs["kl"]).max() < PER_POSITION
    assert ours["kl"].mean() == pytest.approx(theirs["kl"].mean(), rel=ALIKE)


def test_a_head_that_is_spread_over_workers_is_refused(models: Path) -> None:
    spread = {"tensor_parallel_size": 2}
    with pytest.raises(ValueError, match="must be whole"):
        Engine(models / "tied", dtype=torch.float32, context=96, batch_tokens=512, options=spread)
