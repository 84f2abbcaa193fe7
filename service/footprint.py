"""What a base takes: memory to score and to train, and disk. From its headers alone.

Estimates, to be held against a GPU before the first job. They leave out the allocator's waste and
the CUDA context (`OVERHEAD_BYTES` stands for both). A job that runs out of memory tries again at
half as much at once, down to one row: what is told here is that least.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from service.admission import EMBEDS
from service.schedule import measured_steps
from service.schemas.spec import Evaluation, Training
from service.weights import ModelFiles, TensorHeader

Dtype = Literal["float32", "bfloat16"]
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
STORED = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
"""Bytes of one value in a file; every other kind has one."""
OVERHEAD_BYTES = 1_000_000_000
CHECKPOINTED_FROM = 1_000_000_000
"""Parameters above which activations are computed twice in place of being kept, as
`gradient_checkpointing: auto` has it."""
PER_TRAINED = 16
"""A LoRA weight, its gradient, and at most two moments, in float32."""
RESUMES_KEPT = 3
"""Two whole ones, and the one being written."""
PER_POSITION = 88
"""Beside its vector: nine float64 and int64, and five ids less one, in the pass of a base."""
LEAST_TOKENS = 1024
"""Scored at a time once memory has run out often enough."""


@dataclass(frozen=True)
class Footprint:
    """Bytes, and numbers of parameters."""

    parameters: int
    trained: int
    """By LoRA on every linear layer of the body."""
    scoring: int
    training: int
    run_disk: int
    """Adapters that a run keeps, and what it resumes from."""
    pass_disk: int
    """The base's pass over `n_positions`, in the cache."""


def footprint(
    files: ModelFiles, training: Training, *, dtype: Dtype, n_positions: int
) -> Footprint:
    """`training`: rank and length count; `dtype`: as which the weights are loaded."""
    parameters = sum(prod(header.shape) for header in files.tensors.values())
    linear = linear_layers(files)
    width, vocabulary = embedding(files)
    trained = training.lora.r * sum(sum(header.shape) for header in linear)
    weights = parameters * BYTES[dtype]
    # The head's product is in float32 when scoring; a row of logits there and one beside it.
    head = 4 * width * vocabulary
    widest = max((sum(header.shape) for header in linear), default=width)
    scored = LEAST_TOKENS * BYTES[dtype] * (4 * width + widest) + 2 * 64 * 4 * vocabulary
    kept = [measured_steps(training, Evaluation())]
    return Footprint(
        parameters=parameters,
        trained=trained,
        scoring=weights + head + scored + OVERHEAD_BYTES,
        training=weights
        + PER_TRAINED * trained
        + activations(files, training, dtype)
        + OVERHEAD_BYTES,
        run_disk=4 * trained * len(kept[0]) + 3 * 4 * trained * RESUMES_KEPT,
        pass_disk=n_positions * (4 * width + PER_POSITION),
    )


def activations(files: ModelFiles, training: Training, dtype: Dtype) -> int:
    """Bytes that one row of `max_length` tokens keeps for its gradient: what goes into and comes
    out of every linear layer, and the logits with their gradient in float32."""
    linear = linear_layers(files)
    width, vocabulary = embedding(files)
    values = sum(sum(header.shape) for header in linear)
    parameters = sum(prod(header.shape) for header in files.tensors.values())
    if parameters > CHECKPOINTED_FROM and training.gradient_checkpointing == "auto":
        n_layers = max(1, int(files.text_config.get("num_hidden_layers") or 1))
        values = values // n_layers + n_layers * width
    return training.max_length * (values * BYTES[dtype] + 2 * 4 * vocabulary)


def stored_bytes(files: ModelFiles) -> int:
    """Of the weights' files."""
    return sum(prod(one.shape) * STORED.get(one.dtype, 1) for one in files.tensors.values())


def linear_layers(files: ModelFiles) -> list[TensorHeader]:
    """Matrices of the body: no embedding, no head."""
    return [
        header
        for name, header in files.tensors.items()
        if len(header.shape) == 2 and not EMBEDS.search(name.removesuffix(".weight"))
    ]


def embedding(files: ModelFiles) -> tuple[int, int]:
    """Width and vocabulary."""
    width = files.text_config.get("hidden_size") or files.text_config.get("n_embd")
    if not isinstance(width, int) or width < 1:
        rows = [h.shape for n, h in files.tensors.items() if EMBEDS.search(n[: -len(".weight")])]
        width = max((min(shape) for shape in rows if len(shape) == 2), default=1)
    return width, files.vocabulary or 1
