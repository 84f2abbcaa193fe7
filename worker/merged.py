"""LoRA layers without a second product of every activation, for as long as a pass lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from worker.product import product

Forward = Callable[[Tensor], Tensor]


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Plain LoRA layers of `model` compute the same with fewer and larger products.

    In float32 each makes W + sBA when its turn comes, all of them in the memory of one: that is a
    product of `rank` against one of as many rows as the batch has tokens. Nothing is written into
    the model, so there is nothing to restore. In bfloat16 the sum would lose what B and A add, so
    there the small product is added to the large one's result. Layers that do more than add BA
    stay as they are.
    """
    layers = [module for module in model.modules() if _plain(module)]
    sizes = [layer.base_layer.weight.numel() for layer in layers if _in_float32(layer)]
    room = torch.empty(max(sizes), device=model.device) if sizes else None
    try:
        for layer in layers:
            vars(layer)["forward"] = _summing(layer, room) if _in_float32(layer) else _adding(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _summing(layer: LoraLinear, room: Tensor | None) -> Forward:
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    down, up, scale = _factors(layer)
    assert room is not None
    whole = room[: weight.numel()].view_as(weight)

    def forward(x: Tensor) -> Tensor:
        torch.addmm(weight, up, down, alpha=scale, out=whole)
        return product(x, whole, bias)

    return forward


def _adding(layer: LoraLinear) -> Forward:
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    down, up, scale = _factors(layer)
    down, up = down.to(weight.dtype), up.to(weight.dtype).t()

    def forward(x: Tensor) -> Tensor:
        out = product(x, weight, bias)
        out.view(-1, out.shape[-1]).addmm_(product(x, down).flatten(0, -2), up, alpha=scale)
        return out

    return forward


def _factors(layer: LoraLinear) -> tuple[Tensor, Tensor, float]:
    """A (rank, in), B (out, rank) and s."""
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])


def _plain(module: nn.Module) -> bool:
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return False
    names = module.active_adapters
    if len(names) != 1 or module.disable_adapters or module.merged or module.fan_in_fan_out:
        return False
    special = names[0] in module.lora_variant or module.lora_bias.get(names[0], False)
    return names[0] in module.lora_A and not special and not module.training


def _in_float32(layer: LoraLinear) -> bool:
    return bool(layer.base_layer.weight.dtype == torch.float32)
