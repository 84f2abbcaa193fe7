"""Somebody's own training script: plain transformers, plain TRL, none of our code in the making."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

TEXTS = [
    f"{name} number {i} stands by the old mill, and the river runs past it {word}."
    for i, name in enumerate(("The house", "A tree", "The bridge", "A boat", "The gate", "A stone"))
    for word in ("slowly", "by night", "in spring", "without end", "as ever", "all day")
]
HELD_OUT = [f"The mill of the {word} valley grinds corn." for word in ("north", "south", "east")]
Make = Callable[..., Trainer]

ARGUMENTS: dict[str, Any] = {
    "max_steps": 10,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "logging_steps": 2,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 5,
    "dataloader_pin_memory": False,
}
LORA: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 8,
    # Dropout draws from torch's generator at every step: what disturbs it changes the weights.
    "lora_dropout": 0.2,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}


def plain(base: Path, folder: Path, *, full: bool = False, **changes: Any) -> Trainer:
    """transformers.Trainer over a PEFT model, or with `full` over the model itself."""
    lora = {**LORA, **changes.pop("lora", {})}
    callbacks = changes.pop("callbacks", [])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if not full:
        model = get_peft_model(model, LoraConfig(**lora))
        if changes.get("gradient_checkpointing"):
            model.enable_input_require_grads()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = {
        name: Dataset.from_dict(tokenizer(texts, truncation=True, max_length=64))
        for name, texts in (("train", TEXTS), ("test", HELD_OUT))
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **{**ARGUMENTS, **changes}),
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=callbacks,
    )


def sft(base: Path, folder: Path, **changes: Any) -> Trainer:
    """trl.SFTTrainer as its documentation shows it."""
    lora = {**LORA, **changes.pop("lora", {})}
    callbacks = changes.pop("callbacks", [])
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(output_dir=str(folder), max_length=64, **{**ARGUMENTS, **changes}),
        train_dataset=Dataset.from_dict({"text": TEXTS}),
        eval_dataset=Dataset.from_dict({"text": HELD_OUT}),
        processing_class=tokenizer,
        peft_config=LoraConfig(**lora),
        callbacks=callbacks,
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """Every parameter after training, frozen ones too."""
    found = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    gc.collect()
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    """What the trainer logged under that name, by step."""
    return {log["step"]: log[name] for log in trainer.state.log_history if name in log}
