"""A LoRA adapter's two files, judged against a base without loading either.

A is (r, in) and B is (out, r), so that B A has the shape of the base's weight (out, in).
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from service.errors import AdapterUnreadable
from service.floats import misplaced, not_finite
from service.weights import PICKLED, ModelFiles, TensorHeader, read_header, read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
MAX_RANK, MAX_WHOLE = 65_536, 256
MAX_HEADER_BYTES = 10_000_000
"""Some 80,000 tensors."""
TRANSPOSED = frozenset({"gpt2", "openai-gpt"})
"""Models whose linear layers keep their weights as (in, out)."""
HARMLESS_INITS = (True, False, "gaussian", "orthogonal", "eva")
"""PiSSA, OLoRA, CorDA, LoftQ and their like move a part of the base's weights into the adapter."""


@dataclass(frozen=True)
class Lora:
    """What adapter_config.json says about the tensors."""

    rank: int
    ranks: frozenset[int]
    """With those of `rank_pattern`."""
    whole: tuple[str, ...]
    """Modules that were trained whole, `modules_to_save`."""
    trains_tokens: bool


def check_lora(
    folder: Path, base: ModelFiles, *, param: str, weights_param: str | None = None
) -> tuple[Lora, dict[str, TensorHeader]]:
    """Safetensors and JSON only, of PEFT type LORA, with tensors that fit the base.

    Values are not read. `weights_param`: blamed for the tensors, where they came apart from the
    config. Raises AdapterUnreadable.
    """
    lora = read_lora(folder, param=param)
    param = weights_param or param
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLED)
        said = f"{pickled[0]} is pickled, which can run code; " if pickled else ""
        raise AdapterUnreadable(f"{said}the folder has no {WEIGHTS}", param=param)
    refuse_pickle(folder / WEIGHTS, param=param)
    tensors = read_header(
        folder / WEIGHTS, error=AdapterUnreadable, param=param, max_bytes=MAX_HEADER_BYTES
    )
    if not any(".lora_" in name for name in tensors):
        raise AdapterUnreadable(f"{WEIGHTS} holds no LoRA weight", param=param)
    for name, header in tensors.items():
        why = misfit(name, header, tensors, base, lora)
        if why is not None:
            said = f"{name[:256]} does not fit the base: {why}"
            raise AdapterUnreadable(said, param=param, tensor=name[:256])
    fault = misplaced(tensors)
    if fault is not None:
        said = f"{fault[0][:256]} cannot be read: {fault[1]}"
        raise AdapterUnreadable(said, param=param, tensor=fault[0][:256])
    return lora, tensors


def check_values(folder: Path, tensors: Mapping[str, TensorHeader], *, param: str) -> None:
    """Every value is finite. Reads the whole file. Raises AdapterUnreadable."""
    name = not_finite(folder / WEIGHTS, tensors)
    if name is not None:
        raise AdapterUnreadable(f"{name} holds NaN or infinity", param=param, tensor=name)


def trainable_params(lora: Lora, tensors: Mapping[str, TensorHeader]) -> int:
    """P: embeddings that PEFT copied beside a LoRA are not trained."""
    return sum(
        math.prod(header.shape)
        for name, header in tensors.items()
        if "lora_" in name or "trainable_tokens" in name or _is_trained_whole(name, lora)
    )


def adapter_digest(sha256_of: Mapping[str, str]) -> str:
    """sha256 over the sorted (file name, sha256 of content) lines, as of any folder of files."""
    lines = sorted(f"{name}\t{digest}\n" for name, digest in sha256_of.items())
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def read_lora(folder: Path, *, param: str) -> Lora:
    """adapter_config.json. Raises AdapterUnreadable: not LoRA, code of its own, no usable rank."""
    config = read_json(folder / CONFIG, error=AdapterUnreadable, param=param)
    if config.get("peft_type") != "LORA":
        said = f"peft_type is {_short(config.get('peft_type'))}; only LORA is scored"
        raise AdapterUnreadable(said, param=param)
    if config.get("megatron_config") or "auto_map" in config:
        # PEFT would import the module that `megatron_core` names.
        raise AdapterUnreadable(f"{CONFIG} would load code of its own", param=param)
    if config.get("bias", "none") != "none":
        said = f"bias is {_short(config['bias'])} in {CONFIG}; only 'none' is scored: "
        raise AdapterUnreadable(f"{said}others rewrite the base's own biases", param=param)
    if config.get("init_lora_weights", True) not in HARMLESS_INITS:
        said = f"init_lora_weights is {_short(config['init_lora_weights'])} in {CONFIG}, which "
        said += "rewrites the base's weights; convert the adapter to plain LoRA first"
        raise AdapterUnreadable(said, param=param)
    rank, pattern = config.get("r"), config.get("rank_pattern") or {}
    if not _is_rank(rank):
        raise AdapterUnreadable(f"{CONFIG} has no usable rank `r`", param=param)
    if not isinstance(pattern, dict) or not all(map(_is_rank, pattern.values())):
        raise AdapterUnreadable(f"`rank_pattern` in {CONFIG} does not hold ranks", param=param)
    whole = config.get("modules_to_save") or []
    listed = isinstance(whole, list) and len(whole) <= MAX_WHOLE
    if not listed or not all(name and isinstance(name, str) for name in whole):
        said = f"`modules_to_save` in {CONFIG} is no list of at most {MAX_WHOLE} names"
        raise AdapterUnreadable(said, param=param)
    return Lora(
        rank=rank,
        ranks=frozenset({rank, *pattern.values()}),
        whole=tuple(whole),
        trains_tokens=bool(config.get("trainable_token_indices")),
    )


def refuse_pickle(path: Path, *, param: str) -> None:
    """By its first bytes, whatever it is called. Raises AdapterUnreadable."""
    with path.open("rb") as file:
        first = file.read(8)
    # A zip as torch.save writes it, or a bare pickle of protocol 2 to 5, unless it is a length.
    zipped = first.startswith(b"PK\x03\x04")
    too_long = int.from_bytes(first, "little") > MAX_HEADER_BYTES
    bare = first[:1] == b"\x80" and first[1:2] in b"\x02\x03\x04\x05" and too_long
    if zipped or bare:
        said = f"{path.name} is not safetensors but pickled, which can run code; save it with "
        said += "safe_serialization"
        raise AdapterUnreadable(said, param=param)


def misfit(
    name: str,
    header: TensorHeader,
    tensors: Mapping[str, TensorHeader],
    base: ModelFiles,
    lora: Lora,
) -> str | None:
    """Why one tensor cannot be laid over the base; None if it can, or cannot be judged."""
    if not name.startswith(PREFIX):
        return f"its name does not begin with {PREFIX}"
    module, dot, part = name.removeprefix(PREFIX).rpartition(".lora_")
    if not dot:
        return _misfit_whole(name, header, base, lora)
    weight = find_weight(module, base)
    if weight is None:
        return f"the base has no {module[:256]}"
    part = part.removesuffix(".weight")
    judged = not base.quantized and len(weight.shape) == 2
    if part in ("magnitude_vector", "B.bias"):
        n = math.prod(header.shape)
        return f"{n} values" if judged and n not in weight.shape else None
    if part not in ("A", "B", "embedding_A", "embedding_B"):
        return f"lora_{part[:64]} is no part of a LoRA"
    if len(header.shape) != 2:
        return f"{len(header.shape)} dimensions"
    is_a = part.endswith("A")
    inner, outer = header.shape if is_a else header.shape[::-1]
    if inner not in lora.ranks:
        return f"rank {inner}, where {CONFIG} says {_either(lora.ranks)}"
    other = _partner(name, is_a=is_a)
    if other not in tensors:
        return f"{other[:256]} is missing"
    theirs = tensors[other].shape
    if len(theirs) == 2 and theirs[1 if is_a else 0] != inner:
        return f"rank {inner}, where {other[:256]} has {theirs[1 if is_a else 0]}"
    if not judged:
        return None
    rows, columns = weight.shape
    linear = module.rpartition(".")[2] != "lm_head"
    if part.startswith("embedding") or (linear and base.config.get("model_type") in TRANSPOSED):
        rows, columns = columns, rows
    expected = columns if is_a else rows
    if outer != expected:
        return f"{outer} features, where the base has {expected}"
    return None


def _misfit_whole(name: str, header: TensorHeader, base: ModelFiles, lora: Lora) -> str | None:
    """A module that was trained whole, or an embedding that PEFT copied beside the LoRA."""
    if "trainable_tokens" in name and lora.trains_tokens:
        return None
    trained = _is_trained_whole(name, lora)
    if not trained and header.shape[:1] != (base.vocabulary,):
        return "it is no LoRA weight, and `modules_to_save` does not name its module"
    own = find_tensor(name.removeprefix(PREFIX), base)
    if own is None:
        return "the base has no such tensor"
    if not base.quantized and own.shape != header.shape:
        return f"shape {list(header.shape)}, where the base has {list(own.shape)}"
    return None


def find_weight(module: str, base: ModelFiles) -> TensorHeader | None:
    return find_tensor(f"{module}.weight", base)


def find_tensor(name: str, base: ModelFiles) -> TensorHeader | None:
    """By full name; a tied output layer is its embedding; else the one name that ends alike."""
    if name in base.tensors:
        return base.tensors[name]
    if f".{name}".endswith(".lm_head.weight"):
        embeddings = (base.endings.get(f"{one}.weight", []) for one in ("embed_tokens", "wte"))
        inputs = [name for names in embeddings for name in names]
        return base.tensors[inputs[0]] if inputs else None
    # Checkpoints and modules may differ by a prefix: `model.`, `transformer.`, `language_model.`
    alike = base.endings.get(name.split(".", 1)[-1], [])
    return base.tensors[alike[0]] if len(alike) == 1 else None


def _is_trained_whole(name: str, lora: Lora) -> bool:
    return any(f".{module}." in f".{name}" for module in lora.whole)


def _partner(name: str, *, is_a: bool) -> str:
    head, dot, part = name.rpartition(".lora_")
    return head + dot + (part.replace("A", "B", 1) if is_a else part.replace("B", "A", 1))


def _is_rank(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= MAX_RANK


def _either(ranks: frozenset[int]) -> str:
    return " or ".join(str(rank) for rank in sorted(ranks)[:8])


def _short(value: Any) -> str:
    return repr(value)[:64]
