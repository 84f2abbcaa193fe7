"""From any causal LM to its final hidden states and its output head, checked against its logits."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.errors import AdapterUnreadable, EngineUnavailable, ModelUnavailable
from worker.divergence import Head

PROBE_TOKENS = 16
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest logit difference, as a share of the largest logit: rounding of the head's own dtype."""


def hidden_states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(windows, tokens) -> (windows, tokens, width): what the head is applied to.

    Windows are padded on the right and no mask is given: attention is causal, so that no
    scored position ever sees padding.
    """
    body = model.base_model
    if body is model:
        body = model.get_decoder()
    return body(input_ids=ids, use_cache=False).last_hidden_state


@torch.inference_mode()
def head_of(model: PreTrainedModel, *, like: Head | None = None) -> Head:
    """The head that reproduces the model's own logits from its final hidden states.

    Where the weight is the very tensor that `like` was made of, its float32 copy is shared.
    Raises EngineUnavailable, with the difference, where none does: an architecture that does more
    between its body and its logits than scale, bias and soft cap would be scored wrongly.
    Raises ModelUnavailable where the logits are not finite.
    """
    layer = model.get_output_embeddings()
    if layer is None:
        raise EngineUnavailable(
            f"{type(model).__name__} has no output head that can be read", param="base_model"
        )
    weight, bias, source = _linear(layer, like)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    ids = probe_ids(weight)
    hidden = hidden_states(model, ids)[0]
    wanted = model(input_ids=ids, use_cache=False).logits[0].float()
    if not bool(wanted.isfinite().all()):
        raise ModelUnavailable(_not_finite(model), param="base_model")
    limit = TOLERANCE.get(model.dtype, max(TOLERANCE.values())) * float(wanted.abs().max())
    gaps = {}
    for scale in _scales(model.config.get_text_config()):
        head = Head(weight, bias, scale, softcap, source)
        gaps[scale] = float((head.logits(hidden) - wanted).abs().max())
        if gaps[scale] <= limit:
            return head
    raise EngineUnavailable(
        f"the logits of {type(model).__name__} cannot be reproduced from its hidden states and "
        f"head: off by {min(gaps.values()):.2g}, allowed {limit:.2g}",
        param="base_model",
    )


@torch.inference_mode()
def candidate_head(model: PreTrainedModel, *, like: Head | None = None) -> Head:
    """`head_of` a candidate; where the adapter left the very layer of `like` alone, `like` itself.

    Raises AdapterUnreadable where its logits are not finite.
    """
    layer = model.get_output_embeddings()
    if like is not None and type(layer) is nn.Linear and layer.weight is like.source:
        hidden = hidden_states(model, probe_ids(layer.weight))
        if not bool(hidden.isfinite().all()):
            raise AdapterUnreadable(_not_finite(model), param="adapters")
        return like
    try:
        return head_of(model, like=like)
    except ModelUnavailable as error:
        raise AdapterUnreadable(error.message, param="adapters") from error


def probe_ids(weight: Tensor) -> Tensor:
    """(1, PROBE_TOKENS) tokens of the vocabulary that `weight` (vocab, width) is of."""
    return torch.arange(PROBE_TOKENS, device=weight.device)[None] % len(weight)


def _not_finite(model: PreTrainedModel) -> str:
    return f"the logits of this {type(model).__name__} are NaN or infinite"


def bears_adapter(model: PreTrainedModel) -> bool:
    """Whether an adapter's layers are in the model's modules, switched on or off."""
    layers = (BaseTunerLayer, ModulesToSaveWrapper)
    return any(isinstance(module, layers) for module in model.modules())


def _scales(config: Any) -> list[float]:
    """Factors that architectures put on their logits; the one that reproduces them is right."""
    divisor = getattr(config, "logits_scaling", None)
    factors = [
        getattr(config, "logit_scale", None),
        1.0 / divisor if divisor else None,
        divisor,
        getattr(config, "lm_head_multiplier", None),
    ]
    return [float(factor) for factor in [*factors, 1.0] if factor]


def _linear(layer: nn.Module, like: Head | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weight and bias in float32, with whatever an adapter adds to them, and what the weight is a
    copy of, if of one tensor.

    An unadapted float32 head is returned as it is, not as a copy.
    """
    if isinstance(layer, ModulesToSaveWrapper):
        if layer.disable_adapters:
            return _linear(layer.original_module, like)
        return _linear(layer.modules_to_save[layer.active_adapters[0]], like)
    if isinstance(layer, LoraLayer):
        weight, bias, source = _linear(layer.get_base_layer(), like)
        active = [name for name in layer.active_adapters if name in layer.scaling]
        for name in [] if layer.disable_adapters else active:
            weight = weight + layer.get_delta_weight(name).float()
            source = None
        return weight, bias, source
    if not isinstance(layer, nn.Linear) or not layer.weight.is_floating_point():
        raise EngineUnavailable(
            f"an output head of type {type(layer).__name__} cannot be read", param="base_model"
        )
    bias = None if layer.bias is None else layer.bias.detach().float()
    if like is not None and like.source is layer.weight:
        return like.weight, bias, layer.weight
    return layer.weight.detach().float(), bias, layer.weight
