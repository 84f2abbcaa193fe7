"""Loading a base, laying candidates over it, and getting the base back bit for bit."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from service.errors import AdapterUnreadable, ModelUnavailable
from service.settings import Settings
from worker.adapter import WEIGHTS_FILE, trainable_params
from worker.model import Base, load_base, pick_dtype, tuned

PLAIN_PEFT_WARNS = pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
"""Of merging, when plain PEFT makes an adapter on tied embeddings."""

IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def make_adapter(base: Path, folder: Path, **options: object) -> Path:
    """An adapter from plain PEFT, with random values in every tensor."""
    model = LlamaForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    config = LoraConfig(**{"target_modules": ["q_proj", "up_proj"], "r": 4, **options})
    peft_model = get_peft_model(model, config)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture
def adapter(random_base: Path, tmp_path: Path) -> Path:
    return make_adapter(random_base, tmp_path / "adapter")


def test_base_is_frozen_and_described(loaded_base: Base, random_base: Path) -> None:
    assert not loaded_base.model.training
    assert not any(p.requires_grad for p in loaded_base.model.parameters())
    assert {p.dtype for p in loaded_base.model.parameters()} == {torch.float32}
    assert (loaded_base.name, loaded_base.vocab_size) == (random_base.name, 320)
    assert loaded_base.digest != loaded_base.tokenizer_digest


def test_digest_is_of_content_not_of_place(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(random_base, tmp_path / "moved")
    settings = Settings(model_roots=[tmp_path])
    again = load_base("moved", None, dtype="float32", settings=settings)
    assert (again.digest, again.tokenizer_digest) == (
        loaded_base.digest,
        loaded_base.tokenizer_digest,
    )
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    flipped = load_base("moved", None, dtype="float32", settings=settings)
    assert flipped.digest != loaded_base.digest
    assert flipped.tokenizer_digest == loaded_base.tokenizer_digest


def test_base_that_cannot_be_used_names_the_field(random_base: Path, tmp_path: Path) -> None:
    settings = Settings(model_roots=[tmp_path], allow_hub=False)
    shutil.copytree(random_base, tmp_path / "no-tokenizer", ignore=lambda *_: ["tokenizer.json"])
    pickled = shutil.copytree(random_base, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for name in ("absent", "no-tokenizer", "pickled"):
        with pytest.raises(ModelUnavailable) as caught:
            load_base(name, None, dtype="auto", settings=settings)
        assert caught.value.param == "base_model"


def test_tokenizer_larger_than_embedding_is_refused(random_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_base, tmp_path / "small")
    model = LlamaForCausalLM.from_pretrained(random_base)
    model.resize_token_embeddings(300)
    model.save_pretrained(folder)
    with pytest.raises(ModelUnavailable, match="320 tokens, its embedding 300"):
        load_base("small", None, dtype="auto", settings=Settings(model_roots=[tmp_path]))


def test_adapter_acts_inside_and_leaves_no_bit_behind(
    loaded_base: Base, random_base: Path, adapter: Path
) -> None:
    model = loaded_base.model
    before, weights = logits(model), {k: v.clone() for k, v in model.state_dict().items()}
    modules, attributes, config = list(model.modules()), set(vars(model)), model.config.to_dict()
    plain = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(random_base), adapter)
    with tuned(loaded_base, adapter) as candidate:
        assert torch.equal(logits(candidate), logits(plain.eval()))
        assert not torch.equal(logits(candidate), before)
    assert torch.equal(logits(model), before)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    assert list(model.modules()) == modules
    assert set(vars(model)) == attributes
    assert model.config.to_dict() == config


def test_base_comes_back_after_an_error_inside(loaded_base: Base, adapter: Path) -> None:
    before = logits(loaded_base.model)
    with pytest.raises(ZeroDivisionError), tuned(loaded_base, adapter):
        raise ZeroDivisionError
    assert torch.equal(logits(loaded_base.model), before)


@PLAIN_PEFT_WARNS
@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True, "lora_alpha": 1},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"modules_to_save": ["norm"]},
        {"rank_pattern": {"q_proj": 2}},
        {"target_modules": "all-linear", "bias": "none"},
    ],
)
def test_every_kind_of_lora_fits_and_leaves(
    loaded_base: Base, random_base: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    folder = make_adapter(random_base, tmp_path / "other", **options)
    before = logits(loaded_base.model)
    plain = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(random_base), folder)
    with tuned(loaded_base, folder) as candidate:
        assert torch.equal(logits(candidate), logits(plain.eval()))
    assert torch.equal(logits(loaded_base.model), before)


@PLAIN_PEFT_WARNS
def test_embeddings_saved_beside_the_adapter_must_be_the_bases(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(random_base, tmp_path / "embedding", target_modules=["embed_tokens"])
    tensors = load_file(folder / WEIGHTS_FILE)
    key = "base_model.model.model.embed_tokens.base_layer.weight"
    own = loaded_base.model.get_input_embeddings().weight.detach().clone()
    save_file({**tensors, key: own}, folder / WEIGHTS_FILE)
    with tuned(loaded_base, folder):
        pass
    save_file({**tensors, key: own + 1}, folder / WEIGHTS_FILE)
    with (
        pytest.raises(AdapterUnreadable, match=r"embed_tokens\.base_layer\.weight"),
        tuned(loaded_base, folder),
    ):
        pass


Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def _wrong_shape(tensors: dict[str, Tensor]) -> None:
    tensors[Q] = torch.ones(4, 63)


def _missing(tensors: dict[str, Tensor]) -> None:
    del tensors[Q]


def _not_finite(tensors: dict[str, Tensor]) -> None:
    tensors[Q][0, 0] = float("nan")


def _other_rank(tensors: dict[str, Tensor]) -> None:
    tensors[Q] = torch.ones(8, 64)


def _renamed(tensors: dict[str, Tensor]) -> None:
    tensors[Q.replace("layers.1", "layers.7")] = tensors.pop(Q)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            _wrong_shape,
            r"layers\.1\.self_attn\.q_proj\.lora_A\.weight has shape \(4, 63\).*\(4, 64",
        ),
        (_missing, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight is missing"),
        (_not_finite, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight holds NaN"),
        (_other_rank, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight has shape \(8, 64\)"),
        (_renamed, r"layers\.7\.self_attn\.q_proj\.lora_A\.weight has no place"),
    ],
)
def test_tensor_that_does_not_fit_is_named(
    loaded_base: Base, adapter: Path, damage: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    tensors = load_file(adapter / WEIGHTS_FILE)
    damage(tensors)
    save_file(tensors, adapter / WEIGHTS_FILE)
    before = logits(loaded_base.model)
    with pytest.raises(AdapterUnreadable, match=named), tuned(loaded_base, adapter):
        pass
    assert torch.equal(logits(loaded_base.model), before)


def _edit_config(adapter: Path, **changes: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"init_lora_weights": "pissa"}, "rewrites the base's weights"),
        ({"target_modules": ["no_such_module"]}, "does not fit the base"),
        ({"peft_type": "IA3"}, "only LORA"),
        ({"peft_type": 7}, "only LORA"),
    ],
)
def test_config_that_cannot_be_measured_is_refused(
    loaded_base: Base, adapter: Path, changes: dict[str, object], why: str
) -> None:
    _edit_config(adapter, **changes)
    with pytest.raises(AdapterUnreadable, match=why), tuned(loaded_base, adapter):
        pass


def test_file_named_in_the_config_is_never_imported(loaded_base: Base, adapter: Path) -> None:
    _edit_config(adapter, megatron_config={"a": 1}, megatron_core="antigravity_of_the_adapter")
    with tuned(loaded_base, adapter):
        pass


def test_other_peft_methods_and_pickles_are_refused(
    loaded_base: Base, random_base: Path, adapter: Path, tmp_path: Path
) -> None:
    config = IA3Config(target_modules=["v_proj"], feedforward_modules=[])
    get_peft_model(LlamaForCausalLM.from_pretrained(random_base), config).save_pretrained(
        tmp_path / "ia3"
    )
    (adapter / WEIGHTS_FILE).rename(adapter / "adapter_model.bin")
    for folder, why in ((tmp_path / "ia3", "only LORA"), (adapter, "pickled")):
        with pytest.raises(AdapterUnreadable, match=why) as caught, tuned(loaded_base, folder):
            pass
        assert caught.value.param == "adapters"


def test_trainable_params_are_the_adapters_values(adapter: Path) -> None:
    # q: 64 -> 64, up: 64 -> 112, rank 4, two layers
    assert trainable_params(adapter) == 2 * 4 * ((64 + 64) + (64 + 112))


def test_full_model_of_the_same_vocabulary_is_a_candidate(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    before = logits(loaded_base.model)
    changed = AutoModelForCausalLM.from_pretrained(random_base)
    changed.model.norm.weight.data *= 1.5
    changed.save_pretrained(tmp_path / "full")
    expected = logits(changed)
    with tuned(loaded_base, tmp_path / "full") as candidate:
        assert torch.equal(logits(candidate), expected)
        assert not torch.equal(expected, before)
    assert torch.equal(logits(loaded_base.model), before)


def test_full_model_that_does_not_compare_is_refused(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    other = AutoModelForCausalLM.from_pretrained(random_base)
    other.resize_token_embeddings(310)
    other.save_pretrained(tmp_path / "other")
    holed = AutoModelForCausalLM.from_pretrained(random_base)
    holed.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    holed.save_pretrained(tmp_path / "holed")
    (tmp_path / "empty").mkdir()
    for name, why in (("other", "310"), ("holed", r"layers\.1\.mlp\.up_proj"), ("empty", "config")):
        with pytest.raises(AdapterUnreadable, match=why), tuned(loaded_base, tmp_path / name):
            pass


def test_dtype_auto_is_float32_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("auto", cpu) is torch.float32
    assert pick_dtype("bfloat16", cpu) is torch.bfloat16
