"""The update that a LoRA adapter lays over the base: how large it is, and how it was made."""

import math
from collections.abc import Iterator

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from service.schemas.result import LoraFacts

ADAPTER = "default"
SCALED_OTHERWISE = ("rank_pattern", "alpha_pattern")
"""Options under which the update still is scale * B A, matrix by matrix."""
MORE_THAN_BA = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "lora_bias",
    "velora_config",
    "alora_invocation_tokens",
    "use_qalora",
    "monteclora_config",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
)
"""Options under which it is not."""


@torch.no_grad()
def delta_norm(model: PreTrainedModel, config: LoraConfig) -> float | None:
    """|dW|_F = sqrt(sum over adapted matrices of |s B A|_F^2), s = alpha/r or alpha/sqrt(r).

    |B A|_F^2 = tr((B^T B)(A A^T)): two r x r products, in float64, never the dense one. Null where
    the adapter does more than add B A. `model` has the adapter inside.
    """
    if any(getattr(config, name, None) for name in MORE_THAN_BA):
        return None
    total = 0.0
    for _, layer in _adapted(model):
        a, b = _matrices(layer)  # (r, in), (out, r)
        squared = ((b.T @ b) * (a @ a.T)).sum().item()
        # Rounding may leave a matrix of zeros below zero.
        total += layer.scaling[ADAPTER] ** 2 * max(0.0, squared)
    return math.sqrt(total)


def lora_facts(model: PreTrainedModel, config: LoraConfig) -> LoraFacts:
    """What of its recipe an adapter tells; `model` has it inside, so that patterns are resolved."""
    adapted = {name for name, _ in _adapted(model)}
    whole = dict(_without_adapter(model))
    head = model.get_output_embeddings()
    head = getattr(head, "base_layer", head)
    linear = {
        name
        for name, module in whole.items()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not getattr(head, "base_layer", head)
    }
    ends = {name.rsplit(".", 1)[-1] for name in adapted}
    alike = {name for name in whole if name.rsplit(".", 1)[-1] in ends}
    extras = [name for name in SCALED_OTHERWISE + MORE_THAN_BA if getattr(config, name, None)]
    return LoraFacts(
        peft="+".join(["lora", *extras]),
        target_modules=sorted(ends if adapted == alike else adapted),
        all_linear=adapted == linear,
        use_rslora=config.use_rslora,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
    )


def _adapted(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.r:
            yield name, module


def _without_adapter(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by the names that they have without the adapter, an adapted one as its base layer."""
    inside = tuple(f"{name}." for name, _ in _adapted(model))
    for name, module in model.named_modules():
        if not name.startswith(inside):
            yield name, module.get_base_layer() if isinstance(module, LoraLayer) else module


def _matrices(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) in float64; a convolution's kernel counts as inputs."""
    if ADAPTER in layer.lora_embedding_A:
        return layer.lora_embedding_A[ADAPTER].double(), layer.lora_embedding_B[ADAPTER].double()
    a, b = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.double()
    return a.flatten(1), b.flatten(1)
