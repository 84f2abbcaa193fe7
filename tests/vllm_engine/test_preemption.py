"""Windows that are put off in the middle for want of room for keys and values, by vLLM's own count,
and computed again: the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.vllm_engine.row_files import row_files
from tests.vllm_engine.test_engine import ALIKE, PER_POSITION
from tests.worker.candidates_made import make_lora
from worker.vllm_score.engine import BLOCK, Engine, cache_bytes
from worker.vllm_score.passes import Tokens

pytestmark = pytest.mark.filterwarnings("ignore")
CONTEXT, STEP = 4 * BLOCK, 3 * BLOCK
COUNTED = {"disable_log_stats": False}
PIECES = {"long_prefill_token_threshold": BLOCK, "scheduler_reserve_full_isl": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a `model` that reads four blocks of tokens at once, and an `adapter`."""
    root = tmp_path_factory.mktemp("long")
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        LlamaForCausalLM(config).save_pretrained(root / "model")
    make_lora(root / "model", root / "adapter", size=0.02)
    return root


@pytest.fixture(scope="module")
def long(place: Path) -> Tokens:
    lengths = [CONTEXT] * 6 + [CONTEXT - 50, 20]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scored = np.ones(starts[-1], bool)
    scored[starts[:-1]] = False
    ids = np.random.default_rng(8).integers(3, 1000, starts[-1]).astype(np.int32)
    return Tokens(ids, starts, scored)


def run(place: Path, tokens: Tokens, rows: Path, **asked: Any) -> tuple[dict[str, Any], int]:
    """The scores with the base's loss, and how many windows vLLM put off."""
    engine = Engine(place / "model", dtype=torch.float32, context=CONTEXT, **asked)
    files = row_files(rows, tokens, 64, "identity")
    try:
        engine.fill(tokens, files, route="identity", chunk=64)
        found = engine.score(tokens, files, place / "adapter", route="identity", chunk=64)
        (counter,) = (
            one for one in engine._engine.get_metrics() if one.name == "vllm:num_preemptions"
        )
    finally:
        engine.close()
    return found | {"nll_base": files["nll_base"]}, counter.value


def test_windows_put_off_score_the_same(place: Path, long: Tokens, tmp_path: Path) -> None:
    whole, none = run(place, long, tmp_path / "1", batch_tokens=STEP, options=COUNTED)
    assert none == 0

    config = {"num_attention_heads": 2, "hidden_size": 64, "num_hidden_layers": 2}
    block = cache_bytes(config, torch.float32, 0, 0) // 2
    tiny = COUNTED | PIECES | {"kv_cache_memory_bytes": 7 * block}
    asked = {"batch_tokens": STEP, "chunked_prefill": True}
    put_off, many = run(place, long, tmp_path / "2", **asked, options=tiny)
    assert many >= 2
    for column in ("kl", "nll_tuned", "nll_base"):
        assert put_off[column] == pytest.approx(whole[column], abs=PER_POSITION)
    assert put_off["kl"].mean() == pytest.approx(whole["kl"].mean(), rel=ALIKE)


def test_in_pieces_with_the_room_that_is_made_none_is_put_off(
    place: Path, long: Tokens, tmp_path: Path
) -> None:
    asked = {"batch_tokens": STEP, "chunked_prefill": True}
    _, none = run(place, long, tmp_path, **asked, options=COUNTED)
    assert none == 0
