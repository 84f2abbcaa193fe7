"""A LoRA adapter laid over vLLM's linear layers by forward hooks: y += (x A^T) (scale B)^T.

Not by vLLM's own LoRA: its CPU kernels gather a matrix per token (three quarters of the time),
take the last adapter's slot for rows that have none, and its limits on rank and modules are the
engine's, fixed before the adapter is known. The base's weights are not written to, so taking the
hooks off leaves it bit for bit as it was.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

PREFIX = "base_model.model."
PACKED = {
    "q_proj": ("qkv_proj", 0),
    "k_proj": ("qkv_proj", 1),
    "v_proj": ("qkv_proj", 2),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}
"""vLLM's one layer for several of the checkpoint's, and which part of its output is whose."""


class Overlay:
    """One adapter over one model, until `remove`."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        parts: dict[str, list[tuple[int | None, Tensor, Tensor]]] = {}
        for name, a in tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            b = tensors[f"{name.removesuffix('.lora_A.weight')}.lora_B.weight"]
            place, part = _place(module)
            parts.setdefault(place, []).append((part, a, b * scale_of(module, config, len(a))))
        self._handles = []
        try:
            for place, found in parts.items():
                layer = model.get_submodule(place)
                self._handles.append(layer.register_forward_hook(_hook(layer, found)))
        except AttributeError:
            self.remove()
            raise

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def scale_of(module: str, config: dict[str, Any], rank: int) -> float:
    """What PEFT multiplies B A by: alpha / r, or alpha / sqrt(r) under rsLoRA."""
    alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _place(module: str) -> tuple[str, int | None]:
    """`…self_attn.k_proj` -> (`…self_attn.qkv_proj`, 1)."""
    parent, _, leaf = module.rpartition(".")
    packed, part = PACKED.get(leaf, (leaf, None))
    return f"{parent}.{packed}", part


def _hook(
    layer: nn.Module, parts: list[tuple[int | None, Tensor, Tensor]]
) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
    """Adds in place to the layer's output, which nobody else holds yet."""
    spans = _spans(layer)
    placed = [
        (spans[part] if part is not None else slice(None), a.t(), b.t()) for part, a, b in parts
    ]
    down = torch.cat([a for _, a, _ in placed], dim=1)  # (in, sum of ranks)
    reference: Tensor | None = None
    ranks = [a.shape[1] for _, a, _ in placed]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal down, placed, reference
        y = output[0] if isinstance(output, tuple) else output  # (tokens, out)
        x = inputs[0]  # (tokens, in)
        if reference is None:
            reference = y
            down = down.to(y.device, torch.float32)
            placed = [(s, a, b.to(y.device, torch.float32).contiguous()) for s, a, b in placed]
        inner = x.float() @ down
        for (span, _, up), low in zip(placed, inner.split(ranks, dim=1), strict=True):
            part = y[:, span]
            if part.dtype == torch.float32:
                part.addmm_(low, up)
            else:
                # Summed in float32, as PEFT does over a bfloat16 base.
                part.copy_(part.float().addmm_(low, up))

    return hook


def _spans(layer: nn.Module) -> list[slice]:
    sizes = getattr(layer, "output_partition_sizes", None) or []
    spans, start = [], 0
    for size in sizes:
        spans.append(slice(start, start + size))
        start += size
    return spans
