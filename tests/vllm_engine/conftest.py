"""The real vLLM on this CPU; `make test` runs these in an environment of their own."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from service.settings import Settings
    from tests.worker.candidates_made import make_lora
    from worker.model import Base, load_base
    from worker.vllm_score.engine import Engine
    from worker.vllm_score.environment import prepare
    from worker.vllm_score.passes import Tokens
    from worker.windows import Windows

    prepare()


@pytest.fixture(scope="session")
def models(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `tied` (the demo's Llama) and `untied` (a Qwen3 with a head of its own), and
    adapters a, b, c and `zero` of the tied one, `u` of the other."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_base, root / "tied")
    shutil.copytree(tiny_base, root / "untied")
    config = Qwen3Config(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        Qwen3ForCausalLM(config).save_pretrained(root / "untied")
    make_lora(root / "tied", root / "a", size=0.02)
    make_lora(root / "tied", root / "b", size=0.01, r=24, use_rslora=True, lora_alpha=3)
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 9}}
    make_lora(root / "tied", root / "c", size=0.02, **patterns)
    make_lora(root / "tied", root / "zero", size=0.0)
    make_lora(root / "untied", root / "u", size=0.02)
    return root


@pytest.fixture(scope="session")
def settings(models: Path) -> "Settings":
    return Settings(model_roots=[models], data_roots=[models], allow_hub=False)


@pytest.fixture(scope="session")
def windows() -> "Windows":
    """Windows of unlike lengths; a part of some of them is not scored, as in conversations."""
    rng = np.random.default_rng(7)
    lengths = [96] * 24 + [50, 33, 7, 2]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scored = np.ones(starts[-1], bool)
    scored[starts[:-1]] = False
    scored[100:130] = False
    return Windows(
        ids=rng.integers(3, 1000, starts[-1]).astype(np.int32),
        starts=starts,
        scored=scored,
        document=np.arange(len(lengths), dtype=np.int32),
        first=np.zeros(len(lengths), np.int64),
        begins_with_bos=False,
        context=96,
    )


@pytest.fixture(scope="session")
def tokens(windows: "Windows") -> "Tokens":
    return Tokens(windows.ids, windows.starts, windows.scored)


@pytest.fixture(scope="module")
def base(settings: "Settings") -> "Base":
    return load_base("tied", None, dtype="float32", settings=settings)


@pytest.fixture(scope="module")
def engine(models: Path) -> "Iterator[Engine]":
    """Over `tied`, 512 tokens a step."""
    one = Engine(models / "tied", dtype=torch.float32, context=96, batch_tokens=512)
    yield one
    one.close()
