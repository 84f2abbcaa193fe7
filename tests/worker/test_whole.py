"""What must never be scored: a model with a tensor missing, a base that an adapter rewrote."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from service.errors import AdapterUnreadable, ModelUnavailable
from service.settings import Settings
from tests.worker.candidates_made import make_lora, make_model
from tests.worker.conftest import make_tokenizer
from tests.worker.test_score import from_hidden
from worker.adapter import values_kept
from worker.cache import Cache
from worker.corpus import Document, corpus_of, read_corpus
from worker.model import Base, load_base, tuned
from worker.pace import MIN_BATCH_TOKENS, MIN_CHUNK, Pace, within_memory
from worker.score import score_base, score_candidate
from worker.windows import cut

UNLIKELY_GONE = "model.layers.1.mlp.up_proj.weight"


def settings_over(folder: Path) -> Settings:
    return Settings(model_roots=[folder.parent], allow_hub=False)


def take_out(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def qwen(folder: Path) -> Path:
    """Qwen2, because its attention has biases."""
    config = Qwen2Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(4)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_an_adapter_that_rewrites_biases_is_refused_and_rewrites_nothing(tmp_path: Path) -> None:
    folder = qwen(tmp_path / "qwen")
    model = get_peft_model(
        Qwen2ForCausalLM.from_pretrained(folder),
        LoraConfig(target_modules=["q_proj", "v_proj"], bias="lora_only", r=2),
    )
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.data += 1.0
    model.save_pretrained(tmp_path / "adapter")
    base = load_base("qwen", None, dtype="float32", settings=settings_over(folder))
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    with pytest.raises(AdapterUnreadable, match="bias"), tuned(base, tmp_path / "adapter"):
        pass
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_values_written_into_shared_memory_are_put_back() -> None:
    own, stranger = torch.ones(3), torch.ones(3)
    with values_kept([own, stranger], [own.view(3)]):
        own += 1
        stranger += 1
    assert own.tolist() == [1, 1, 1]
    assert stranger.tolist() == [2, 2, 2]


def test_a_base_with_a_tensor_missing_is_refused(random_base: Path, tmp_path: Path) -> None:
    folder = make_model(random_base, tmp_path / "torn", size=0.0)
    make_tokenizer().save_pretrained(folder)
    load_base("torn", None, dtype="float32", settings=settings_over(folder))
    take_out(folder, UNLIKELY_GONE)
    with pytest.raises(ModelUnavailable, match=UNLIKELY_GONE):
        load_base("torn", None, dtype="float32", settings=settings_over(folder))


def test_a_candidate_with_a_tensor_missing_is_refused(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    folder = make_model(random_base, tmp_path / "torn", size=0.01)
    take_out(folder, UNLIKELY_GONE)
    with pytest.raises(AdapterUnreadable, match=UNLIKELY_GONE), tuned(loaded_base, folder):
        pass


def test_learned_positions_are_scored_up_to_the_last(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=320, n_positions=16, n_embd=32, n_layer=1, n_head=2)
    torch.manual_seed(5)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    make_tokenizer().save_pretrained(tmp_path / "gpt2")
    base = load_base("gpt2", None, dtype="float32", settings=settings_over(tmp_path / "gpt2"))
    corpus = corpus_of("made", "text", [Document("a", "The mill stands by the river. " * 9)])
    windows = cut(corpus, base.tokenizer, 16)
    assert int(windows.lengths.max()) == 16
    found = score_base(
        base,
        windows,
        corpus_digest=corpus.digest,
        route="logits",
        cache=Cache(tmp_path / "cache", max_bytes=10**9),
    )
    assert found.noise_positions > 0
    assert abs(found.noise_kl) < 1e-6


def test_where_memory_ends_the_pace_is_halved_down_to_a_floor() -> None:
    paces: list[Pace] = []

    def attempt(pace: Pace) -> str:
        paces.append(pace)
        if len(paces) < 3:
            raise torch.OutOfMemoryError
        return "made"

    said: list[str] = []
    assert within_memory(attempt, Pace(32_768, 4096), warn=said.append) == "made"
    assert paces == [Pace(32_768, 4096), Pace(16_384, 2048), Pace(8192, 1024)]
    assert len(said) == 2

    def never(pace: Pace) -> str:
        paces.append(pace)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        within_memory(never, Pace(32_768, 4096), warn=said.append)
    assert paces[-1] == Pace(MIN_BATCH_TOKENS, MIN_CHUNK)


def test_both_routes_agree_with_float64_on_wikitext(
    shared_data: Path, tiny_base: Path, tmp_path: Path
) -> None:
    base = load_base("tiny_base", None, dtype="float32", settings=settings_over(tiny_base))
    whole = read_corpus(shared_data / "wikitext-103-raw-test.txt", "wikitext")
    corpus = corpus_of("wikitext", "wikitext", list(whole.documents[:2]))
    windows = cut(corpus, base.tokenizer, 128)
    assert windows.n_positions > 10_000
    adapter = make_lora(tiny_base, tmp_path / "adapter", size=0.012)
    with tuned(base, adapter) as model:
        log_tuned = from_hidden(model, windows)
    log_base = from_hidden(base.model, windows)
    p = np.exp(log_base)
    wanted = {
        "kl": (p * (log_base - log_tuned)).sum(-1).mean(),
        "ce_soft": -(p * log_tuned).sum(-1).mean(),
        "ce_hard": -log_tuned[np.arange(len(p)), p.argmax(-1)].mean(),
        "same_top": (p.argmax(-1) == log_tuned.argmax(-1)).mean(),
    }
    assert 0.001 < wanted["kl"] < 0.02
    for route in ("identity", "logits"):
        before = score_base(
            base,
            windows,
            corpus_digest=corpus.digest,
            route=route,
            cache=Cache(tmp_path / route, max_bytes=10**9),
        )
        with tuned(base, adapter) as model:
            scores = score_candidate(model, windows, before)
        for name, value in wanted.items():
            assert scores[name].mean() == pytest.approx(value, rel=1e-5), (route, name)
