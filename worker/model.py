"""The base model and what is laid over it. `base.model` is never changed: outside `tuned` it is
the base bit for bit, with gradients off, in eval mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from service.errors import AdapterUnreadable, InvalidSpec, ModelUnavailable
from service.settings import Settings
from service.sources import HubModel, resolve_model
from service.weights import folder_files, weight_names
from worker.adapter import attached
from worker.digest import TOKENIZER, digest_files, digest_folder
from worker.hub import model_folder

Dtype = Literal["auto", "float32", "bfloat16"]
NAMED_TENSORS = 8
"""Of those at fault, in a message."""


@dataclass(frozen=True)
class Base:
    """A loaded base: what is fine-tuned, and what forgetting is measured against."""

    name: str
    """As the job asked for it."""
    folder: Path
    """Where its files lie: the given folder, or the snapshot of the hub's."""
    revision: str | None
    """Commit of a hub model; null for a local folder."""
    model: PreTrainedModel
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype
    digest: str
    """Of weights and config.json."""
    tokenizer_digest: str

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def vocab_size(self) -> int:
        """Rows of the output head; the tokenizer may know fewer tokens."""
        return int(self.model.get_output_embeddings().weight.shape[0])


def load_base(
    name: str,
    revision: str | None,
    *,
    dtype: Dtype,
    settings: Settings,
    dtype_param: str = "training.dtype",
) -> Base:
    """Load weights (safetensors only, no remote code) and tokenizer onto this process's device.

    `name` is a folder under an allowed root, or a hub id. Raises ModelUnavailable, and what
    `worker.hub.model_folder` raises.
    """
    folder, commit = _folder(name, revision, settings)
    device = pick_device()
    chosen = pick_dtype(dtype, device, param=dtype_param)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(
            f"{name}: no usable tokenizer ({error})", param="base_model"
        ) from error
    model = _load_model(folder, name, dtype=chosen).to(device)
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        raise ModelUnavailable(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, its embedding {rows}",
            param="base_model",
        )
    return Base(
        name=name,
        folder=folder,
        revision=commit,
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=chosen,
        digest=weights_digest(folder),
        tokenizer_digest=digest_folder(folder, TOKENIZER),
    )


@contextmanager
def tuned(base: Base, candidate: Path) -> Iterator[PreTrainedModel]:
    """The candidate, ready to score: `base.model` under a LoRA adapter, or a full model.

    `candidate` is a folder with adapter_config.json and adapter_model.safetensors, or one with
    config.json and safetensors of the base's vocabulary. Afterwards `base.model` is the base bit
    for bit. Raises AdapterUnreadable, naming the tensor that does not fit or is not finite.
    """
    if is_adapter(candidate):
        with attached(base.model, candidate) as model:
            yield model
        return
    model = _load_candidate(base, candidate)
    try:
        yield model
    finally:
        model.to("meta")  # frees the weights even while the caller keeps the name


def weights_digest(folder: Path) -> str:
    """Of what makes a model compute what it computes: its safetensors, and config.json, which
    sets rotary angles and norms."""
    names = ["config.json", *weight_names(folder, error=ModelUnavailable, param="base_model")]
    return digest_files(folder / name for name in names)


def is_adapter(candidate: Path) -> bool:
    """Whether the folder holds a PEFT adapter (else it must be a full model)."""
    return (candidate / "adapter_config.json").is_file()


def pick_device() -> torch.device:
    """The first visible GPU, else the CPU. Which GPU that is, CUDA_VISIBLE_DEVICES says."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(dtype: Dtype, device: torch.device, *, param: str = "training.dtype") -> torch.dtype:
    """auto is bfloat16 on a GPU that computes in it, float32 elsewhere.

    Raises InvalidSpec, naming `param`, where bfloat16 is asked of a GPU that lacks it.
    """
    if dtype == "float32":
        return torch.float32
    on_gpu = device.type == "cuda"
    if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if dtype == "bfloat16" and on_gpu:
        raise InvalidSpec(f"this GPU has no bfloat16: {param} must be auto or float32", param=param)
    return torch.float32 if dtype == "auto" else torch.bfloat16


def _folder(name: str, revision: str | None, settings: Settings) -> tuple[Path, str | None]:
    resolved = resolve_model(name, revision, settings)
    if isinstance(resolved, HubModel):
        folder = model_folder(resolved)
        return folder, folder.name
    folder_files(resolved)  # refuses remote code, pickles, a folder without config.json
    return resolved, None


def _load_model(folder: Path, name: str, *, dtype: torch.dtype) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnavailable(f"{name}: cannot be loaded ({error})", param="base_model") from error
    _check_whole(model, loading, name)
    return model.eval().requires_grad_(False)


def _check_whole(model: PreTrainedModel, loading: Mapping[str, Any], name: str) -> None:
    """Raises ModelUnavailable unless the files held each of the model's tensors, in its shape:
    what is missing would be drawn at random. Tied weights may be absent."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    wrong = {
        "missing": set(loading["missing_keys"]) - tied,
        "of another shape": {str(key) for key in loading["mismatched_keys"]},
    }
    for what, keys in wrong.items():
        if keys:
            names = ", ".join(sorted(keys)[:NAMED_TENSORS])
            raise ModelUnavailable(
                f"{name}: {len(keys)} of its tensors {what}: {names}", param="base_model"
            )


def _load_candidate(base: Base, folder: Path) -> PreTrainedModel:
    folder_files(folder, error=AdapterUnreadable, param="adapters")
    try:
        model = _load_model(folder, folder.name, dtype=base.dtype)
    except ModelUnavailable as error:
        raise AdapterUnreadable(error.message, param="adapters") from error
    rows = int(model.get_output_embeddings().weight.shape[0])
    if rows != base.vocab_size:
        raise AdapterUnreadable(
            f"{folder.name}: vocabulary of {rows} tokens, the base has {base.vocab_size}",
            param="adapters",
        )
    for tensor_name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterUnreadable(
                f"{folder.name}: {tensor_name} holds NaN or infinity", param="adapters"
            )
    return model.to(base.device)
