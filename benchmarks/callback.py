"""What `ForgettingCallback` takes of a training run's wall-clock, with its default settings.

Run: python -m benchmarks.callback

Tiny base, LoRA of rank 16, one CPU thread, rows of random tokens: time does not depend on which.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from worker.callback import ForgettingCallback

BASE = Path(__file__).parent.parent / "demo" / "tiny_base"
TOKENS, BATCH = 128, 8
SENTENCE = "The river number {} runs past the old mill, and nobody remembers who built it. "
CORPUS = [SENTENCE.format(i) * 20 for i in range(300)]


def share(n_steps: int, folder: str) -> tuple[int, float]:
    """Windows scored at each reading, and the share of the run's wall-clock that all took."""
    rows = np.random.default_rng(1).integers(3, 1000, (n_steps * BATCH, TOKENS)).tolist()
    trainer = Trainer(
        model=get_peft_model(
            AutoModelForCausalLM.from_pretrained(BASE),
            LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        ),
        args=TrainingArguments(
            output_dir=folder,
            max_steps=n_steps,
            per_device_train_batch_size=BATCH,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=AutoTokenizer.from_pretrained(BASE),
        callbacks=[ForgettingCallback(CORPUS)],
    )
    trainer.train()
    told = trainer.state.log_history[-1]
    return told["forgetting/windows"], told["forgetting/share_of_time"]


def main() -> None:
    torch.set_num_threads(1)
    sys.stdout.write("| steps | windows a reading | share of the run's time |\n|---|---|---|\n")
    for n_steps in (50, 200):
        with tempfile.TemporaryDirectory() as folder:
            n_windows, part = share(n_steps, folder)
        sys.stdout.write(f"| {n_steps} | {n_windows} | {part:.1%} |\n")


if __name__ == "__main__":
    main()
