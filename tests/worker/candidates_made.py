"""Candidates from plain PEFT and plain transformers, none of our own code in the making."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_lora(base: Path, folder: Path, *, size: float, **options: object) -> Path:
    """A LoRA adapter whose B matrices (and saved modules) are drawn with deviation `size`."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    config = LoraConfig(**{"target_modules": list(ALL_LINEAR), "r": 4, **options})
    peft_model = get_peft_model(model, config)
    for name, parameter in peft_model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += torch.randn_like(parameter) * size
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_model(base: Path, folder: Path, *, size: float) -> Path:
    """A full model: the base with noise on every matrix, saved without a tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data += torch.randn_like(parameter) * size
    model.save_pretrained(folder)
    return folder


def naive_log_p(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """(tokens,) -> (tokens - 1, vocab): the model's own logits, float64 log-softmax."""
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
