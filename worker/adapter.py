"""LoRA adapters as files: save, check, and lay over a model. safetensors only, never pickles."""

import json
import math
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from service.errors import AdapterUnreadable
from service.lora import HARMLESS_INITS
from service.weights import read_header
from worker.pristine import pristine
from worker.sync import sync_folder

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


@contextmanager
def attached(model: PreTrainedModel, folder: Path) -> Iterator[PreTrainedModel]:
    """`model` itself with the adapter's LoRA inside its modules; bit for bit itself afterwards.

    Raises AdapterUnreadable where a tensor's name or shape does not fit the model, and says which.
    """
    config = read_config(folder)
    tensors = read_tensors(folder)
    own = list(model.state_dict().values())
    with pristine(model):
        peft_model = _inject(model, config, folder.name)
        expected = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
        fitting = _fitting(tensors, expected, model, folder.name)
        with values_kept(own, expected.values()):
            set_peft_model_state_dict(peft_model, fitting)
            yield model.eval().requires_grad_(False)


@contextmanager
def values_kept(own: Iterable[Tensor], written: Iterable[Tensor]) -> Iterator[None]:
    """Afterwards those of a model's `own` tensors that share memory with one of `written` hold
    the values they had before, bit for bit."""
    places = {tensor.data_ptr() for tensor in written}
    kept = [(tensor, tensor.clone()) for tensor in own if tensor.data_ptr() in places]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration. Raises AdapterUnreadable unless it is LoRA's."""
    try:
        kind = json.loads((folder / CONFIG_FILE).read_text())["peft_type"]
        if kind != PeftType.LORA:
            raise AdapterUnreadable(
                f"{folder.name}: peft_type {kind!r}; only LORA can be measured", param="adapters"
            )
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AdapterUnreadable(
            f"{folder.name}: unreadable {CONFIG_FILE} ({error})", param="adapters"
        ) from error
    if config.init_lora_weights not in HARMLESS_INITS:
        raise AdapterUnreadable(
            f"{folder.name}: init_lora_weights {config.init_lora_weights!r} rewrites the base's "
            "weights; convert the adapter to plain LoRA first",
            param="adapters",
        )
    if config.bias != "none":
        raise AdapterUnreadable(
            f"{folder.name}: bias {config.bias!r} in {CONFIG_FILE} rewrites the base's biases; "
            "only 'none' can be measured",
            param="adapters",
        )
    config.init_lora_weights = True  # every value is replaced by the file's
    config.megatron_config = None  # would import whatever module the file names
    config.inference_mode = True
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the adapter, on the CPU, every value finite. Raises AdapterUnreadable."""
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise AdapterUnreadable(
            f"{folder.name}: no {WEIGHTS_FILE}; pickled weights are not read", param="adapters"
        )
    # Names the tensor that a cut file breaks off in, as safetensors itself does not.
    read_header(file, error=AdapterUnreadable, param="adapters")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterUnreadable(
            f"{folder.name}: unreadable {WEIGHTS_FILE} ({error})", param="adapters"
        ) from error
    if not tensors:
        raise AdapterUnreadable(f"{folder.name}: {WEIGHTS_FILE} is empty", param="adapters")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterUnreadable(
                f"{folder.name}: {name} holds NaN or infinity", param="adapters", tensor=name
            )
    return tensors


def trainable_params(folder: Path) -> int:
    """P: number of values that training may change, by the headers of the adapter's tensors.

    Embeddings that PEFT copied beside a LoRA are not trained. Raises AdapterUnreadable.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterUnreadable(f"{folder.name}: no {WEIGHTS_FILE}", param="adapters")
    headers = read_header(folder / WEIGHTS_FILE, error=AdapterUnreadable, param="adapters")
    whole = read_config(folder).modules_to_save or ()
    return sum(
        math.prod(header.shape)
        for name, header in headers.items()
        if "lora_" in name
        or "trainable_tokens" in name
        or any(f".{module}." in f".{name}" for module in whole)
    )


def save_adapter(peft_model: PeftModel, folder: Path, *, base_name: str) -> None:
    """Write the adapter so that plain PEFT loads it; `folder` appears whole or not at all.

    The same tensors give the same bytes: sets in the configuration are written sorted.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_tensors(peft_model, partial)
    config = peft_model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    (partial / CONFIG_FILE).write_text(text + "\n")
    sync_folder(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    sync_folder(folder.parent)


def write_tensors(peft_model: PeftModel, folder: Path) -> None:
    """What `save_pretrained` writes, without its model card and without asking the hub whether
    the base's vocabulary was changed."""
    tensors = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _inject(model: PreTrainedModel, config: LoraConfig, name: str) -> PeftModel:
    try:
        with warnings.catch_warnings():
            # Tied embeddings under modules_to_save: matters for merging, which is not done here.
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
            return PeftModel(model, config)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise AdapterUnreadable(
            f"{name}: does not fit the base ({error})", param="adapters"
        ) from error


def _fitting(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: PreTrainedModel, name: str
) -> dict[str, Tensor]:
    """The tensors, once each one's name and shape are those that the base asks for."""
    fitting = {}
    for key, tensor in tensors.items():
        if key not in expected:
            if _is_copy_of_base(key, tensor, model):
                continue
            raise AdapterUnreadable(
                f"{name}: tensor {key} has no place in the base", param="adapters", tensor=key
            )
        if tensor.shape != expected[key].shape:
            raise AdapterUnreadable(
                f"{name}: tensor {key} has shape {tuple(tensor.shape)}, "
                f"the base needs {tuple(expected[key].shape)}",
                param="adapters",
                tensor=key,
            )
        fitting[key] = tensor
    missing = sorted(expected.keys() - fitting.keys())
    if missing:
        raise AdapterUnreadable(
            f"{name}: tensor {missing[0]} is missing ({len(missing)} in all)",
            param="adapters",
            tensor=missing[0],
        )
    return fitting


def _is_copy_of_base(key: str, tensor: Tensor, model: PreTrainedModel) -> bool:
    """PEFT saves whole embeddings beside LoRA on them; harmless while they are the base's own."""
    own = {id(layer.weight): layer.weight for layer in _embeddings(model)}.values()
    return key.endswith("weight") and any(
        weight.shape == tensor.shape and torch.equal(weight.cpu(), tensor.to(weight.dtype))
        for weight in own
    )


def _embeddings(model: PreTrainedModel) -> list[torch.nn.Module]:
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [getattr(layer, "base_layer", layer) for layer in layers if layer is not None]
