"""What a folder of weights says about itself: config.json and safetensors headers, no tensor."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from service.errors import ModelUnavailable, UserError

MAX_JSON_BYTES = 32_000_000
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
"""Files of which a tokenizer needs one."""


@dataclass(frozen=True)
class TensorHeader:
    dtype: str
    """As safetensors spells it: F32, BF16, …"""
    shape: tuple[int, ...]
    offsets: tuple[int, int] = field(default=(0, 0), compare=False)
    """[begin, end) within the file's data, in bytes. The hub does not tell them."""


@dataclass(frozen=True)
class ModelFiles:
    config: dict[str, Any]
    tensors: dict[str, TensorHeader] = field(repr=False)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's part of a config that has several."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def max_positions(self) -> int | None:
        """Longest sequence that the model was made for; None where it names no limit."""
        for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
            value = self.text_config.get(name)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @property
    def vocabulary(self) -> int | None:
        value = self.text_config.get("vocab_size")
        return value if isinstance(value, int) else None

    @property
    def quantized(self) -> bool:
        return bool(self.config.get("quantization_config"))

    @cached_property
    def endings(self) -> Mapping[str, list[str]]:
        """Full names of the tensors by each of their endings: `b.c`, `c` of `a.b.c`."""
        found: dict[str, list[str]] = {}
        for name in self.tensors:
            steps = name.split(".")
            for i in range(len(steps)):
                found.setdefault(".".join(steps[i:]), []).append(name)
        return found

    @property
    def layout(self) -> str:
        """sha256 of kind, vocabulary and every tensor's name and shape: adapters that fit one
        base fit each of the same layout, in whatever dtype its weights are."""
        shapes = sorted((name, header.shape) for name, header in self.tensors.items())
        said = [self.config.get("model_type"), self.quantized, self.vocabulary, shapes]
        return f"sha256:{hashlib.sha256(json.dumps(said).encode()).hexdigest()}"


def folder_files(
    folder: Path, *, error: type[UserError] = ModelUnavailable, param: str = "base_model"
) -> ModelFiles:
    """Of a model's folder. Raises `error`: no config, remote code, pickles, damaged headers."""
    config = read_json(folder / "config.json", error=error, param=param)
    refuse_code(config, [entry.name for entry in folder.iterdir()], error=error, param=param)
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        refuse_code(read_json(tokenizer_config, error=error, param=param), [], error, param)
    tensors: dict[str, TensorHeader] = {}
    for name in weight_names(folder, error=error, param=param):
        tensors |= read_header(folder / name, error=error, param=param)
    return ModelFiles(config, tensors)


def require_tokenizer(folder: Path) -> None:
    """Raises ModelUnavailable where nothing in the folder can turn text into tokens."""
    if not any(fnmatch(e.name, pattern) for e in folder.iterdir() for pattern in VOCABULARIES):
        raise ModelUnavailable(
            "the folder has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, …)",
            param="base_model",
        )


def refuse_code(
    config: Mapping[str, Any], names: list[str], error: type[UserError], param: str
) -> None:
    """Raises `error` if the model would bring its own Python."""
    if "auto_map" in config:
        raise error(
            "the config has `auto_map`: models with code of their own are refused", param=param
        )
    code = sorted(name for name in names if name.endswith(".py"))
    if code:
        raise error(f"the folder holds Python code, which is refused: {code[0]}", param=param)


def weight_names(folder: Path, *, error: type[UserError], param: str) -> list[str]:
    """Names of the safetensors files that make up the model."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single.name]
    if index.is_file():
        places = read_json(index, error=error, param=param).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise error(f"{index.name} has no `weight_map`", param=param)
        names = sorted({str(name) for name in places.values()})
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise error(f"{index.name} names {name}, which is not in the folder", param=param)
        return names
    pickled = sorted(e.name for e in folder.iterdir() if e.suffix in PICKLED)
    if pickled:
        raise error(
            f"{pickled[0]} is pickled, which can run code; save the weights as safetensors",
            param=param,
        )
    raise error("the folder has no model.safetensors", param=param)


def read_json(path: Path, *, error: type[UserError], param: str) -> dict[str, Any]:
    if not path.is_file():
        raise error(f"the folder has no {path.name}", param=param)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise error(f"{path.name} is over {MAX_JSON_BYTES} bytes", param=param)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as cause:
        raise error(f"{path.name} is not JSON: {cause}", param=param) from cause
    if not isinstance(value, dict):
        raise error(f"{path.name} is not a JSON object", param=param)
    return value


def read_header(
    path: Path, *, error: type[UserError], param: str, max_bytes: int = MAX_HEADER_BYTES
) -> dict[str, TensorHeader]:
    """Tensors of one safetensors file. Raises `error` if it is damaged or cut short.

    `max_bytes`: of the header, which is read whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= min(max_bytes, size - 8):
            raise error(f"{path.name} is not safetensors, or is cut short", param=param)
        raw = file.read(length)
    try:
        tensors = _entries(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise error(f"{path.name} has a damaged header", param=param) from cause
    if not tensors:
        raise error(f"{path.name} holds no tensor", param=param)
    end, held = max(header.offsets[1] for header in tensors.values()), size - 8 - length
    if end > held:
        torn = min((h.offsets, name) for name, h in tensors.items() if h.offsets[1] > held)[1][:256]
        said = f"{path.name} is cut short: {held} bytes of data, its header wants {end}; "
        said += f"{torn} is the first tensor that is not whole"
        raise error(said, param=param, tensor=torn)
    if end < held:
        said = f"{path.name} has {held} bytes of data, of which its header describes {end}"
        raise error(said, param=param)
    return tensors


def _entries(raw: bytes) -> dict[str, TensorHeader]:
    """Raises ValueError and its like for what the format forbids, though Python's JSON takes it."""
    if not raw.startswith(b"{"):
        raise ValueError("no object")
    entries = json.loads(raw.decode(), parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    metadata = entries.pop("__metadata__", None)
    if any(not isinstance(value, str) for value in (metadata or {}).values()):
        raise ValueError("metadata is not text")
    tensors = {}
    for name, entry in entries.items():
        name.encode()  # half a character is no name
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        numbers = (begin, end, *shape)
        if not all(type(n) is int and 0 <= n < 2**63 for n in numbers) or begin > end:
            raise ValueError(f"{name}: not a place or shape")
        tensors[name] = TensorHeader(str(entry["dtype"]), shape, (begin, end))
    return tensors


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The format forbids it: which of the two counts is each reader's own guess."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
