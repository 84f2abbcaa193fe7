"""Causal attention on a CPU in C, as an attention implementation of transformers."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from worker.agreement import Agreement
from worker.head import hidden_states, probe_ids
from worker.native import native, threads

NAME = "forgetting_causal"
LANES = 16
DTYPES = (torch.float32, torch.bfloat16)
_agreement = Agreement({torch.float32: 1e-4, torch.bfloat16: 5e-2})  # of hidden states: rounding


@contextmanager
def causal_attention(model: PreTrainedModel) -> Iterator[None]:
    """Where the model calls torch's scaled_dot_product_attention on a CPU it calls the C: models
    that take attention from transformers' interface, and gave the same with it once."""
    config = model.config.get_text_config()
    plain = config._attn_implementation == "sdpa" and model._supports_attention_backend
    if not plain or model.device.type != "cpu" or native() is None or not _agrees(model):
        yield
        return
    with _taken(config):
        yield


def attention_name(config: PreTrainedConfig) -> str:
    """What the model asks for, also while the C stands in for it."""
    name = str(config._attn_implementation)
    return "sdpa" if name == NAME else name


@contextmanager
def _taken(config: PreTrainedConfig) -> Iterator[None]:
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _agrees(model: PreTrainedModel) -> bool:
    ids = probe_ids(model.get_input_embeddings().weight)

    def faster() -> Tensor:
        with _taken(model.config.get_text_config()):
            return hidden_states(model, ids)

    return _agreement.of(model, model.dtype, lambda: hidden_states(model, ids), faster)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """(windows, heads, tokens, dim) each -> (windows, tokens, heads, dim), and no weights.

    What is not plain causal attention over whole windows goes to torch's.
    """
    if attention_mask is not None or not _plain(module, query, key, value, more):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
    windows, heads, tokens, dim = query.shape
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    out = query.new_empty(windows, tokens, heads, dim)
    shape = (ctypes.c_int64 * 5)(windows, heads, key.shape[1], tokens, dim)
    steps = [s for x in (query, key, value, out.transpose(1, 2)) for s in x.stride()[:3]]
    library = native()
    assert library is not None
    failed = library.causal_attention(
        query.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        shape,
        (ctypes.c_int64 * 12)(*steps),
        dim**-0.5 if scaling is None else scaling,
        int(query.dtype == torch.bfloat16),
        out.data_ptr(),
        threads(),
    )
    if failed:
        raise MemoryError(f"no memory for attention over {tokens} tokens")
    return out, None


def _plain(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, more: dict[str, Any]
) -> bool:
    causal = more.get("is_causal")
    return (
        bool(getattr(module, "is_causal", True) if causal is None else causal)
        and query.dtype in DTYPES
        and query.dtype == key.dtype == value.dtype
        and query.shape[-2] == key.shape[-2] > 1
        and query.shape[-1] == value.shape[-1]
        and query.shape[-1] % LANES == 0
        and not more.get("dropout")
        and all(more.get(name) is None for name in ("softcap", "s_aux", "position_bias"))
    )
