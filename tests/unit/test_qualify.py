"""What vLLM may score, by the files' own words."""

from typing import Any

import pytest

from service.qualify import unsuited_base, unsuited_lora
from service.weights import ModelFiles, TensorHeader

LAYER = "base_model.model.model.layers.0"
PLAIN = (f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.down_proj")


def lora(*modules: str, extra: tuple[str, ...] = (), **config: Any) -> str | None:
    names = [f"{module}.lora_{part}.weight" for module in modules for part in "AB"]
    header = TensorHeader("F32", (4, 8))
    body = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **config}
    return unsuited_lora(body, dict.fromkeys([*names, *extra], header))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"r": 4096},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9}},
        {"modules_to_save": None, "use_dora": False, "layer_replication": None},
    ],
)
def test_plain_lora_of_any_rank_qualifies(config: dict[str, Any]) -> None:
    assert lora(*PLAIN, **config) is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "bias of its own"),
        ({"modules_to_save": ["lm_head"]}, "modules trained whole"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"target_parameters": ["mlp.experts"]}, "parameters"),
        ({"layer_replication": [[0, 1]]}, "replicated"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"use_qalora": True}, "QALoRA"),
        ({"alora_invocation_tokens": [5]}, "activated"),
        ({"arrow_config": {"top_k": 1}}, "Arrow"),
    ],
)
def test_more_than_plain_lora_does_not(config: dict[str, Any], why: str) -> None:
    said = lora(*PLAIN, **config)
    assert said is not None
    assert why in said


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ("base_model.model.lm_head.lora_A.weight", "output head"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings"),
        ("base_model.model.model.embed_tokens.weight", "embeddings"),
        (f"{LAYER}.self_attn.q_proj.lora_magnitude_vector", "no low-rank product"),
        (f"{LAYER}.self_attn.q_proj.lora_B.bias", "no low-rank product"),
        (f"{LAYER}.self_attn.kv_b_proj.lora_A.weight", "no low-rank product"),
        ("base_model.model.model.norm.weight", "no low-rank product"),
    ],
)
def test_tensors_outside_of_the_body_do_not(tensor: str, why: str) -> None:
    said = lora(*PLAIN, extra=(tensor,))
    assert said is not None
    assert why in said
    assert tensor in said


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, None),
        ({"logit_scale": 1.0}, None),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": None}, "no architecture"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"logits_scaling": 8.0}, "logits_scaling"),
    ],
)
def test_bases(config: dict[str, Any], why: str | None) -> None:
    said = unsuited_base(ModelFiles({"architectures": ["LlamaForCausalLM"], **config}, {}))
    assert (said is None) if why is None else (said is not None and why in said)
