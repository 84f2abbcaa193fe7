"""What a model in training is compared with: itself without its adapter, or a named reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer
from transformers import PreTrainedTokenizerBase as Tokenizer

from service.errors import CorpusUnreadable, InvalidSpec, ModelUnavailable
from service.lora import HARMLESS_INITS
from service.schemas.spec import Evaluation
from service.settings import Settings
from service.sources import is_hub_id, is_wikitext
from worker.corpus import Corpus, Document, corpus_of, load_corpus, read_corpus
from worker.update import ADAPTER


def refuse(trainer: Trainer, model: nn.Module, reference: str | None) -> None:
    """Raises InvalidSpec where the model cannot be compared with its base."""
    deepspeed = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    stage = None if deepspeed is None else deepspeed.zero_stage
    how = sharding(trainer.accelerator.distributed_type, stage)
    if how is not None:
        raise InvalidSpec(
            f"{how} splits the weights over processes, and ForgettingCallback measures in one; "
            "train with DDP or ZeRO-2, or evaluate the saved adapters afterwards"
        )
    devices = set((getattr(model, "hf_device_map", None) or {}).values())
    if len(devices) > 1:
        raise InvalidSpec(
            f"the model lies on {len(devices)} devices; ForgettingCallback measures on one"
        )
    if reference is None:
        _refuse_without_reference(model)


def sharding(kind: DistributedType, zero_stage: int | None) -> str | None:
    """What keeps no process in possession of the whole model; None where nothing does."""
    if zero_stage == 3:
        return "DeepSpeed ZeRO-3"
    whole = kind not in (DistributedType.FSDP, DistributedType.MEGATRON_LM)
    return None if whole else kind.value


def _refuse_without_reference(model: nn.Module) -> None:
    if not isinstance(model, PeftModel):
        raise InvalidSpec(
            "there is no adapter to switch off: of a full fine-tuning say what it began from, "
            'ForgettingCallback(…, reference="Qwen/Qwen3-0.6B")'
        )
    if set(model.peft_config) != {ADAPTER}:
        raise InvalidSpec(
            f"adapters {sorted(model.peft_config)}; only one, called {ADAPTER!r}, can be measured"
        )
    config: Any = model.peft_config[ADAPTER]
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise InvalidSpec(f"{config.peft_type.value} adds no weights that could be switched off")
    if getattr(config, "init_lora_weights", True) not in HARMLESS_INITS:
        raise InvalidSpec(
            f"init_lora_weights {config.init_lora_weights!r} rewrites the base's weights: "
            "switched off it is not the base; name that as `reference`"
        )
    if getattr(config, "bias", "none") != "none":
        raise InvalidSpec(
            f"bias {config.bias!r} trains the base's own biases: name the base as `reference`"
        )


@contextmanager
def base_of(model: nn.Module, reference: str | None) -> Iterator[PreTrainedModel]:
    """The base, on the model's device and in its dtype. A reference is freed afterwards."""
    if reference is None:
        with model.disable_adapter():
            yield inner(model)
        return
    tuned = inner(model)
    base = AutoModelForCausalLM.from_pretrained(reference, dtype=tuned.dtype)
    rows = [len(one.get_input_embeddings().weight) for one in (base, tuned)]
    if rows[0] != rows[1]:
        raise ModelUnavailable(
            f"reference {reference} has {rows[0]} tokens, the model in training {rows[1]}"
        )
    yield base.to(tuned.device).eval().requires_grad_(False)


def inner(model: nn.Module) -> PreTrainedModel:
    """The transformers model, with whatever adapter is in it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def corpus_for(given: str | Path | list[str], split: str) -> Corpus:
    """Texts as they are, a file anywhere, `wikitext-103`, or a hub id. Raises CorpusUnreadable."""
    if not isinstance(given, str | Path):
        texts = [text for text in given if text.strip()]
        return corpus_of("texts", "text", [Document(text[:60], text) for text in texts])
    if Path(given).is_file():
        return read_corpus(Path(given), str(given))
    name = str(given)
    if not is_wikitext(name) and not is_hub_id(name):
        raise CorpusUnreadable(f"{name} is neither a file nor the name of a hub data set")
    return load_corpus(Evaluation(corpus=name, split=split), Settings(data_roots=[]))


def tokenizer_of(processing_class: Any) -> Tokenizer:
    """The trainer's own, or that of its processor. Raises InvalidSpec where it has none."""
    found = getattr(processing_class, "tokenizer", processing_class)
    if not isinstance(found, Tokenizer):
        raise InvalidSpec(
            "the trainer has no tokenizer: give it `processing_class`, or give "
            "ForgettingCallback(…, tokenizer=tokenizer)"
        )
    return found
