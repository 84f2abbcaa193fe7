"""Modules that compute the same with fewer walks through memory, for as long as a pass lasts.

A module is replaced only after it has given the same on numbers of its own, so that an
architecture whose norm or gate is another stays as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.agreement import Agreement
from worker.attention import causal_attention
from worker.merged import merged
from worker.native import native, threads
from worker.product import by_onednn, product

Forward = Callable[[Tensor], Tensor]
SUFFIX = {torch.float32: "float", torch.bfloat16: "bfloat16"}
PROBE_ROWS = 3
_agreement = Agreement({torch.float32: 1e-5, torch.bfloat16: 2e-2})  # rounding
_turns = RLock()


@contextmanager
def fused(model: PreTrainedModel) -> Iterator[None]:
    """Linear layers, RMSNorms, SiLU-gated layers and attention of `model` on a CPU, and LoRA layers
    anywhere, by their faster forms. The model is itself again afterwards; threads take turns."""
    with _turns, faster_modules(model), merged(model), causal_attention(model):
        yield


@contextmanager
def faster_modules(model: nn.Module) -> Iterator[None]:
    """`fused` without LoRA layers and attention."""
    changed = []
    try:
        for module in model.modules():
            forward = _faster(module)
            if forward is not None and "forward" not in vars(module):
                vars(module)["forward"] = forward
                changed.append(module)
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


def _faster(module: nn.Module) -> Forward | None:
    if type(module) is nn.Linear:
        return _linear(module) if _on_cpu(module) and by_onednn() else None
    if native() is None or module.training:
        return None
    if hasattr(module, "variance_epsilon") and _on_cpu(module):
        return _agreeing(module, _rms_norm, module.weight)
    if hasattr(module, "act_fn") and _on_cpu(getattr(module, "gate_proj", None)):
        return _agreeing(module, _gated, module.gate_proj.weight)
    return None


def _linear(layer: nn.Linear) -> Forward:
    return lambda x: product(x, layer.weight, layer.bias)


def _rms_norm(norm: nn.Module) -> Forward:
    weight, eps = norm.weight, norm.variance_epsilon
    compute = getattr(native(), f"rms_norm_{SUFFIX[weight.dtype]}")

    def forward(x: Tensor) -> Tensor:
        if x.dtype != weight.dtype:
            return type(norm).forward(norm, x)
        x = x.contiguous()
        out = torch.empty_like(x)
        rows = x.numel() // len(weight)
        values = (x.data_ptr(), rows, len(weight), weight.data_ptr(), eps, out.data_ptr())
        compute(*values, threads())
        return out

    return forward


def _gated(layer: nn.Module) -> Forward:
    def forward(x: Tensor) -> Tensor:
        gate, up = layer.gate_proj(x).contiguous(), layer.up_proj(x).contiguous()
        if gate.dtype != up.dtype or gate.dtype not in SUFFIX:
            return layer.down_proj(layer.act_fn(gate) * up)
        compute = getattr(native(), f"silu_times_{SUFFIX[gate.dtype]}")
        compute(gate.data_ptr(), up.data_ptr(), gate.numel(), threads())
        return layer.down_proj(gate)

    return forward


def _agreeing(
    module: nn.Module, made: Callable[[nn.Module], Forward], weight: Tensor
) -> Forward | None:
    """The faster form, if it gives what the module itself gives."""
    forward = made(module)

    def numbers() -> Tensor:
        seeded = torch.Generator().manual_seed(0)
        return torch.randn(PROBE_ROWS, weight.shape[-1], generator=seeded).to(weight.dtype)

    # Its forward alone, without its hooks.
    own, faster = (lambda: module.forward(numbers())), (lambda: forward(numbers()))
    agree = _agreement.of(module, weight.dtype, own, faster)
    return forward if agree else None


def _on_cpu(module: object) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.device.type == "cpu" and weight.dtype in SUFFIX
