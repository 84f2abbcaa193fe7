"""TRL's SFTTrainer, quiet: no network, no files but resume checkpoints, rows in our own order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from service.errors import InvalidSpec
from service.schemas.spec import Training
from worker.adapter import write_tensors
from worker.data import PackedRows, Row, TokenisedDataset
from worker.model import Base
from worker.schedule import RowOrder
from worker.watch import Watch

CHECKPOINTING_FROM_PARAMS = 1_000_000_000
"""`gradient_checkpointing: auto`: on a GPU, for models above this many parameters."""


class Sft(SFTTrainer):
    """Differs from SFTTrainer only in what it must not do, and in the order of rows."""

    row_order: RowOrder | SequentialSampler

    def _get_train_sampler(
        self, train_dataset: Dataset | None = None
    ) -> RowOrder | SequentialSampler:
        return self.row_order

    def _send_telemetry(self) -> None:
        """A worker talks to nobody but its service."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Resume checkpoints are read by us alone."""

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        # The default asks the hub for the base's vocabulary and writes tokenizer and README.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.model, folder)


def make_trainer(
    base: Base,
    dataset: TokenisedDataset,
    training: Training,
    *,
    micro_batch_size: int,
    folder: Path,
    watch: Watch,
) -> Sft:
    """A trainer over `base.model`, which it changes: use inside `pristine`.

    The seed is set here, before the adapter's matrices are drawn.
    """
    pad = base.tokenizer.pad_token_id
    order = RowOrder(
        len(dataset.train), training.max_steps * training.batch_size, seed=training.seed
    )
    drawn, sampler = _drawn(dataset.train, order)
    rows = {
        "input_ids": [row.input_ids for row in drawn],
        "labels": [row.labels for row in drawn],
    }
    trainer = Sft(
        model=base.model,
        args=_arguments(base, training, micro_batch_size=micro_batch_size, folder=folder),
        train_dataset=Dataset.from_dict(rows),
        processing_class=base.tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=0 if pad is None else pad),
        peft_config=lora_config(base, training),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    trainer.row_order = sampler
    return trainer


def _drawn(
    train: PackedRows, order: RowOrder
) -> tuple[Sequence[Row], RowOrder | SequentialSampler]:
    """The rows that the run sees and the order over them: of less than one pass, no more than
    those are copied, and lie in their order."""
    if order.n_draws >= len(train):
        return train, order
    some = train.part(order)
    return some, SequentialSampler(some)


def lora_config(base: Base, training: Training) -> LoraConfig:
    """PEFT's configuration. Raises InvalidSpec naming a target module that the base lacks."""
    lora = training.lora
    targets: str | list[str] = lora.target_modules
    if isinstance(targets, list):
        _check_targets(base, targets)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        target_modules=targets,
        bias="none",
    )


def _check_targets(base: Base, targets: list[str]) -> None:
    names = [name for name, _ in base.model.named_modules()]
    head, embedding = base.model.get_output_embeddings(), base.model.get_input_embeddings()
    for target in targets:
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        if not found:
            raise InvalidSpec(
                f"no module {target!r} in {base.name}", param="training.lora.target_modules"
            )
        layers = [base.model.get_submodule(name) for name in found]
        if any(layer is embedding for layer in layers):
            raise InvalidSpec(
                f"{target!r} is the embedding, not a linear layer",
                param="training.lora.target_modules",
            )
        if any(layer is head for layer in layers):
            raise InvalidSpec(
                f"{target!r} is the output head, which the training loss reads directly",
                param="training.lora.target_modules",
            )


def _arguments(base: Base, training: Training, *, micro_batch_size: int, folder: Path) -> SFTConfig:
    on_gpu = base.device.type == "cuda"
    big = base.model.num_parameters() > CHECKPOINTING_FROM_PARAMS
    checkpointing = training.gradient_checkpointing
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=training.max_steps,
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=training.batch_size // micro_batch_size,
        learning_rate=training.learning_rate,
        optim=training.optim,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        data_seed=training.seed,
        bf16=base.dtype == torch.bfloat16,
        use_cpu=not on_gpu,
        gradient_checkpointing=(on_gpu and big) if checkpointing == "auto" else checkpointing,
        max_length=None,  # rows come cut
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,  # would hide what `LossWatch` must see
        save_strategy="no",  # `Watch` says when
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )
    if arguments.n_gpu > 1:
        # One process, one GPU: DataParallel would split a batch over all that are visible.
        arguments._n_gpu = 1
    return arguments
