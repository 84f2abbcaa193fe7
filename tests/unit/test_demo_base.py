"""The base that lies in the repository is the one that its card describes."""

import json
from pathlib import Path

import numpy as np
import pytest

from demo.make_base import (
    BOS,
    CONTEXT,
    EOS,
    VOCABULARY,
    batches,
    bigram_loss,
    make_tokenizer,
    rate,
    tokens,
    unigram_loss,
)
from demo.model_card import file_digest, read_card
from demo.prose import Document
from service.sources import model_files

TEXTS = [Document("one", "a bird in the hand"), Document("two", "is worth two in the bush, n'est?")]


def test_the_files_are_those_of_the_card(tiny_base: Path) -> None:
    recorded = read_card(tiny_base)["files"]
    assert set(recorded) == {path.name for path in tiny_base.iterdir()} - {"README.md"}
    assert recorded == {name: file_digest(tiny_base / name) for name in recorded}


def test_the_weights_are_small_and_all_there(tiny_base: Path) -> None:
    assert (tiny_base / "model.safetensors").stat().st_size <= 4_000_000
    files = model_files(tiny_base)
    assert sum(int(np.prod(t.shape)) for t in files.tensors.values()) == 922_752
    assert {t.dtype for t in files.tensors.values()} == {"F32"}
    assert files.config["max_position_embeddings"] == CONTEXT
    assert files.config["tie_word_embeddings"] is True


def test_the_tokenizer_writes_any_bytes_and_begins_with_bos(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.chat_template is None
    text = "Füße, 東京\tand 🙂\n"
    assert tokenizer.decode(tokenizer(text).input_ids[1:]) == text
    assert tokenizer(text).input_ids[0] == tokenizer.bos_token_id == BOS
    assert tokenizer.eos_token_id == EOS
    assert tokenizer.pad_token_id not in {BOS, EOS, None}


def test_the_base_learnt_more_than_pairs_of_tokens(tiny_base: Path) -> None:
    loss = read_card(tiny_base)["loss"]
    assert loss["this model"] < loss["bigram"] - 0.5 < loss["unigram"]


def test_the_recorded_loss_is_the_weights_own(tiny_base: Path) -> None:
    """On another Python the held-out text differs a little, and so may the loss."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from demo.make_base import held_out_loss
    from demo.prose import documents, is_held_out

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    stream = tokens(tokenizer.backend_tokenizer, documents(is_held_out))
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    card = read_card(tiny_base)
    same_text = len(stream) == card["held_out"]["tokens"]
    found = held_out_loss(model, stream)
    assert found == pytest.approx(card["loss"]["this model"], abs=1e-3 if same_text else 0.15)


def test_a_stream_ends_every_document() -> None:
    stream = tokens(make_tokenizer([d.text for d in TEXTS]), TEXTS)
    assert stream.tolist().count(EOS) == len(TEXTS)
    assert stream[-1] == EOS
    assert BOS not in stream


def test_batches_begin_with_bos_and_repeat_with_the_seed() -> None:
    stream = np.arange(3, 1_000, dtype=np.int64)
    drawn = [
        [b.tolist() for b in batches(stream, n_steps=3, rng=np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    for row in drawn[0][0]:
        assert len(row) == CONTEXT
        assert row[0] == BOS
        assert row[1:] == list(range(row[1], row[1] + CONTEXT - 1))


def test_the_rate_warms_up_holds_and_falls() -> None:
    n = 1_000
    assert rate(0, n) < rate(20, n) < rate(60, n) == rate(500, n) == 1.0
    assert 1.0 > rate(700, n) > rate(900, n) > rate(n - 1, n) > 0.0


def test_references_by_hand() -> None:
    """Of a stream that alternates two tokens, the one before tells all, and frequency nothing."""
    stream = np.tile(np.array([3, 4], dtype=np.int64), 100_000)
    assert unigram_loss(stream, stream) == pytest.approx(np.log(2), abs=0.01)
    assert bigram_loss(stream, stream) == pytest.approx(0.0, abs=0.01)


def test_the_config_is_plain_llama(tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config
