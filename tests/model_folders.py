"""Models and adapters as folders with true configs and headers; every weight is zero."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VOCABULARY, WIDTH, INNER, LAYERS, POSITIONS = 64, 16, 40, 2, 128
Shapes = Mapping[str, tuple[int, ...]]


def write_model(folder: Path, *, config: Mapping[str, Any] | None = None) -> Path:
    """A Llama of 2 layers x 16 with 128 positions."""
    folder.mkdir(parents=True)
    whole = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "tokenizer.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", model_shapes())
    return folder


def model_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (WIDTH, WIDTH)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (INNER, WIDTH)
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes[f"{layer}.input_layernorm.weight"] = (WIDTH,)
    return shapes


def write_adapter(
    folder: Path,
    *,
    rank: int = 4,
    config: Mapping[str, Any] | None = None,
    shapes: Shapes | None = None,
) -> Path:
    """A LoRA on both layers' q_proj and gate_proj, as PEFT saves it."""
    folder.mkdir(parents=True)
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**whole, **(config or {})}))
    write_safetensors(folder / "adapter_model.safetensors", shapes or lora_shapes(rank))
    return folder


def lora_shapes(rank: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(LAYERS):
        layer = f"base_model.model.model.layers.{i}"
        for name, outer in (("self_attn.q_proj", WIDTH), ("mlp.gate_proj", INNER)):
            shapes[f"{layer}.{name}.lora_A.weight"] = (rank, WIDTH)
            shapes[f"{layer}.{name}.lora_B.weight"] = (outer, rank)
    return shapes


def write_safetensors(path: Path, shapes: Shapes) -> None:
    """By the format's definition: length, header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for n in shape:
            size *= n
        offsets = [end, end + size]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))
