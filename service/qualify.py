"""Which bases and adapters the vLLM engine scores rightly, judged by their files alone.

vLLM leaves an adapted head out of its prompt log-probs without a word (vllm#51594), and other
engines skip what they do not know. So what may be scored is listed; all else is refused by name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.errors import AdapterUnreadable
from service.lora import CONFIG, MAX_HEADER_BYTES, PREFIX, WEIGHTS
from service.weights import ModelFiles, TensorHeader, read_header, read_json

ARCHITECTURES = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
)
"""A plain body and a plain linear head; compared with transformers position by position."""
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLACE = re.compile(
    rf"{re.escape(PREFIX)}model\.layers\.\d+\.(?:self_attn|mlp)\.(?:{'|'.join(LINEAR)})"
    r"\.lora_[AB]\.weight"
)
HEADS = re.compile(r"(^|\.)(lm_head|embed_tokens)\.")
EXTRAS = {
    "use_dora": "DoRA",
    "lora_bias": "a bias of its own",
    "bias": "biases",
    "modules_to_save": "modules trained whole",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "parameters outside of linear layers",
    "layer_replication": "replicated layers",
    "fan_in_fan_out": "transposed weights",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "kasa_config": "KaSA",
}
"""Of adapter_config.json, what makes more of an adapter than y += scale B A x."""


def unsuited_base(files: ModelFiles) -> str | None:
    """Why vLLM is not to score on this base; None if it may."""
    named = files.config.get("architectures") or ["no architecture"]
    if files.quantized:
        return "the base is quantised"
    if named[0] not in ARCHITECTURES:
        return f"{named[0]} is none of {', '.join(sorted(ARCHITECTURES))}"
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if files.text_config.get(name) not in (None, 1, 1.0):
            return f"the base's head has {name}"
    return None


def unsuited_adapter(folder: Path, *, param: str) -> str | None:
    """Why vLLM is not to score this candidate; None if it may. Raises AdapterUnreadable."""
    if not (folder / CONFIG).is_file():
        return "a full model, not a LoRA adapter"
    config = read_json(folder / CONFIG, error=AdapterUnreadable, param=param)
    tensors = read_header(
        folder / WEIGHTS, error=AdapterUnreadable, param=param, max_bytes=MAX_HEADER_BYTES
    )
    return unsuited_lora(config, tensors)


def unsuited_lora(config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]) -> str | None:
    """The same of an adapter_config.json and the tensors' headers."""
    if config.get("peft_type") != "LORA":
        return f"peft_type {config.get('peft_type')!r} is not LORA"
    for name, what in EXTRAS.items():
        if config.get(name) not in (None, False, "none", [], {}):
            return f"the adapter has {what} ({name})"
    for tensor in sorted(tensors):
        if HEADS.search(tensor):
            return f"the adapter changes the output head or the embeddings ({tensor})"
        if not PLACE.fullmatch(tensor):
            return f"{tensor} is no low-rank product on a linear layer of the body"
    return None
