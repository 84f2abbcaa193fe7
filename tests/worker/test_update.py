"""The size of an adapter's update against the dense product, and what its files say of it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from service.settings import Settings
from tests.worker.candidates_made import ALL_LINEAR, make_lora
from tests.worker.conftest import make_tokenizer
from worker.adapter import read_config
from worker.model import Base, load_base, tuned
from worker.update import delta_norm, lora_facts


def dense_norm(folder: Path, scale: Any) -> float:
    """By the file alone: every matrix product made and squared. `scale`: of a module's name."""
    tensors = load_file(folder / "adapter_model.safetensors")
    total = 0.0
    for name, a in tensors.items():
        if "lora_A" in name or "lora_embedding_A" in name:
            b = tensors[name.replace("_A", "_B")]
            total += float(((scale(name) * b.double() @ a.double()) ** 2).sum())
    return math.sqrt(total)


def measured(base: Base, folder: Path) -> tuple[float | None, Any]:
    config = read_config(folder)
    with tuned(base, folder) as model:
        return delta_norm(model, config), lora_facts(model, config)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"r": 1, "lora_alpha": 0.5}, 0.5),
        ({"r": 16, "lora_alpha": 1, "use_rslora": True, "target_modules": ["q_proj"]}, 0.25),
        ({"r": 4, "lora_alpha": 4, "target_modules": ["embed_tokens", "v_proj"]}, 1.0),
    ],
    ids=str,
)
def test_the_norm_is_that_of_the_dense_update(
    loaded_base: Base, random_base: Path, tmp_path: Path, options: dict[str, Any], scale: float
) -> None:
    folder = make_lora(random_base, tmp_path / "lora", size=0.05, **options)
    found, _ = measured(loaded_base, folder)
    assert found == pytest.approx(dense_norm(folder, lambda _: scale), rel=1e-12)
    assert found > 0


def test_it_agrees_with_pefts_own_updates(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    folder = make_lora(random_base, tmp_path / "lora", size=0.05, lora_alpha=8, use_rslora=True)
    found, _ = measured(loaded_base, folder)
    with tuned(loaded_base, folder) as model:
        updates = [
            layer.get_delta_weight("default").double()
            for layer in model.modules()
            if hasattr(layer, "get_delta_weight")
        ]
    assert len(updates) == 14
    assert found == pytest.approx(math.sqrt(sum(float((u**2).sum()) for u in updates)), rel=1e-5)


def test_ranks_and_alphas_of_their_own_count(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 32}}
    folder = make_lora(
        random_base, tmp_path / "lora", size=0.05, r=4, lora_alpha=8, use_rslora=True, **patterns
    )

    def scale(name: str) -> float:
        rank = 2 if "q_proj" in name else 4
        return (32 if "layers.1.mlp.down_proj" in name else 8) / math.sqrt(rank)

    found, facts = measured(loaded_base, folder)
    assert found == pytest.approx(dense_norm(folder, scale), rel=1e-12)
    assert facts.peft == "lora+rank_pattern+alpha_pattern"


def test_an_untrained_adapter_changes_nothing(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    assert measured(loaded_base, make_lora(random_base, tmp_path / "lora", size=0.0))[0] == 0.0


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["norm"]}], ids=str)
def test_what_is_more_than_two_matrices_has_no_norm(
    loaded_base: Base, random_base: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    folder = make_lora(random_base, tmp_path / "more", size=0.05, **options)
    found, facts = measured(loaded_base, folder)
    assert found is None
    assert facts.peft == f"lora+{next(iter(options))}"


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
@pytest.mark.parametrize(
    ("options", "names", "all_linear"),
    [
        ({}, sorted(ALL_LINEAR), True),
        ({"target_modules": "all-linear"}, sorted(ALL_LINEAR), True),
        ({"target_modules": ["q_proj", "k_proj"]}, ["k_proj", "q_proj"], False),
        ({"target_modules": r".*\.mlp\.up_proj"}, ["up_proj"], False),
        ({"target_modules": [*ALL_LINEAR, "lm_head"]}, sorted([*ALL_LINEAR, "lm_head"]), False),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [1]},
            ["model.layers.1.self_attn.q_proj"],
            False,
        ),
    ],
    ids=str,
)
def test_targets_are_named_alike_however_they_were_chosen(
    loaded_base: Base,
    random_base: Path,
    tmp_path: Path,
    options: dict[str, Any],
    names: list[str],
    all_linear: bool,
) -> None:
    options = {"task_type": "CAUSAL_LM", **options}
    folder = make_lora(random_base, tmp_path / "lora", size=0.05, **options)
    _, facts = measured(loaded_base, folder)
    assert (facts.target_modules, facts.all_linear) == (names, all_linear)


def test_the_rest_is_read_from_the_config(
    loaded_base: Base, random_base: Path, tmp_path: Path
) -> None:
    options = {"lora_alpha": 3, "lora_dropout": 0.1, "use_rslora": True}
    folder = make_lora(random_base, tmp_path / "lora", size=0.05, **options)
    _, facts = measured(loaded_base, folder)
    assert (facts.peft, facts.lora_alpha, facts.lora_dropout) == ("lora", 3, 0.1)
    assert facts.use_rslora


def test_layers_that_keep_their_weights_transposed_count_as_linear(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = GPT2Config(vocab_size=320, n_positions=16, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    make_tokenizer().save_pretrained(tmp_path / "gpt2")
    model = get_peft_model(
        GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2"),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=True),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += torch.randn_like(parameter) * 0.05
    model.save_pretrained(tmp_path / "lora")
    settings = Settings(model_roots=[tmp_path], allow_hub=False)
    base = load_base("gpt2", None, dtype="float32", settings=settings)
    found, facts = measured(base, tmp_path / "lora")
    assert facts.all_linear
    assert found == pytest.approx(dense_norm(tmp_path / "lora", lambda _: 4.0), rel=1e-12)
