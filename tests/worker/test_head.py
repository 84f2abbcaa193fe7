"""Hidden states and heads of many architectures: reproduced from the model's own, or refused."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from service.errors import EngineUnavailable, ModelUnavailable
from worker.divergence import Head, base_rows
from worker.head import bears_adapter, candidate_head, head_of, hidden_states

VOCAB = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 8},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0, "sliding_window": 8},
    "Gemma3": {"head_dim": 8},
    "Cohere": {"logit_scale": 0.0625},
    "Granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0},
    "Phi": {},
    "Phi3": {},
    "Olmo2": {},
    "StableLm": {},
    "GPTNeoX": {},
    "GPT2": GPT2,
    "Bloom": {"n_layer": 2, "n_head": 4},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "Falcon": {},
    "Mixtral": {"num_local_experts": 4},
    "FalconH1": {
        "lm_head_multiplier": 0.5,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
    },
}


class Odd(LlamaForCausalLM):
    """More between body and logits than scale, bias and soft cap."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + 0.3 * out.logits.sin()
        return out


def make(name: str, **more: Any) -> PreTrainedModel:
    shape = SHAPE | ({"head_dim": 8} if "Gemma" in name else {}) | ARCHITECTURES[name] | more
    config_class = name + ("TextConfig" if name == "Gemma3" else "Config")
    config = getattr(transformers, config_class)(**shape)
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # logits and biases that show when they are wrong
        if parameter.dim() <= 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def ids(length: int) -> Tensor:
    return torch.randint(3, VOCAB, (2, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_logits_are_the_models_own(name: str) -> None:
    model, tokens = make(name), ids(20)
    head = head_of(model)
    wanted = model(input_ids=tokens).logits
    found = head.logits(hidden_states(model, tokens).flatten(0, 1)).view(wanted.shape)
    assert wanted.abs().max() > 0.05
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_padding_on_the_right_is_never_seen(name: str) -> None:
    model, tokens = make(name), ids(20)
    padded = torch.cat([tokens, torch.zeros(2, 7, dtype=torch.long)], dim=1)
    short, long = hidden_states(model, tokens), hidden_states(model, padded)[:, :20]
    assert (short - long).abs().max() < 1e-4 * short.abs().max()


def test_scale_and_soft_cap_are_found() -> None:
    assert head_of(make("Cohere")).scale == 0.0625
    assert head_of(make("Granite")).scale == 0.125
    assert head_of(make("Gemma2")).softcap == 3.0
    assert head_of(make("Phi")).bias is not None
    llama = head_of(make("Llama"))
    assert (llama.scale, llama.bias, llama.softcap) == (1.0, None, None)


def test_what_cannot_be_reproduced_is_refused() -> None:
    torch.manual_seed(4)
    odd = Odd(LlamaConfig(**SHAPE, initializer_range=0.3)).eval()
    with pytest.raises(EngineUnavailable, match=r"cannot be reproduced.*off by"):
        head_of(odd)
    body = make("Llama").model
    with pytest.raises(EngineUnavailable, match="no output head"):
        head_of(body)


def test_logits_that_are_not_finite_are_refused() -> None:
    model = make("Llama")
    model.lm_head.weight.data[5] = torch.inf
    with pytest.raises(ModelUnavailable, match="NaN or infinite"):
        head_of(model)


def test_a_float32_head_is_not_copied() -> None:
    model = make("Llama")
    assert head_of(model).weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert not bears_adapter(model)
    half = model.to(torch.bfloat16)
    assert candidate_head(half).weight.dtype == torch.float32


def test_bfloat16_logits_are_made_in_float32() -> None:
    """Rounded to bfloat16, logits near 8 are off by 0.03: more than most forgetting."""
    model = make("Llama").to(torch.bfloat16)
    head = head_of(model)
    with torch.inference_mode():
        hidden = hidden_states(model, ids(20))[0]
    logits = head.logits(hidden)
    exact = hidden.double() @ model.lm_head.weight.double().t()
    assert (logits - exact).abs().max() < 1e-5
    rows = base_rows(hidden, head, ids(20)[0], chunk=8, route="logits")
    h_base = -(exact.softmax(-1) * exact.log_softmax(-1)).sum(-1)
    assert (rows.h_base - h_base).abs().max() < 1e-5
    assert isinstance(head, Head)
