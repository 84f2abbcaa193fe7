"""Can jobs use this base here? What `admit` asks, line by line, with what mends each."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import UserError
from service.footprint import Dtype, Footprint, footprint, stored_bytes
from service.price import HUB_TOKENS
from service.schemas.models import ModelCheck, ModelLine
from service.schemas.spec import Lora, Training
from service.settings import Settings
from service.sources import HubModel, model_files, resolve_model
from service.weights import ModelFiles, require_tokenizer

GATED = (
    "Accept the model's licence on its page at the hub, and set HF_TOKEN of that account for "
    "service and workers."
)
UNREACHABLE = (
    "Let service and workers reach the hub, or put the model's folder under FORGETTING_MODEL_ROOTS."
)
CAUSES = {
    "GatedRepoError": GATED,
    "RevisionNotFoundError": "Name a branch, tag or commit of the model.",
    "RepositoryNotFoundError": "Look at the spelling; for a private model set HF_TOKEN.",
    "HFValidationError": "Look at the spelling.",
}
"""By the name of what the hub said: its library is only imported where a hub id is asked for."""
BYTES_PER_GB = 1e9


@dataclass(frozen=True)
class Question:
    model: str
    revision: str | None = None
    dtype: Dtype = "bfloat16"
    rank: int = 16
    max_length: int = 512
    gpu_bytes: int | None = None

    @property
    def training(self) -> Training:
        return Training(max_length=self.max_length, lora=Lora(r=self.rank))


def examine(asked: Question, settings: Settings) -> ModelCheck:
    """Never raises UserError: a refusal is a line of the answer."""
    lines: list[ModelLine] = []
    files, base = _reach(asked, settings, lines)
    need, disk = None, None
    if files is not None and base is not None:
        need = footprint(files, asked.training, dtype=asked.dtype, n_positions=HUB_TOKENS)
        disk = need.run_disk + need.pass_disk + _to_fetch(base, files)
        lines += _lines(asked, files, need)
        lines.append(_disk(need, disk, settings))
    return ModelCheck(
        model=asked.model,
        revision=asked.revision,
        ok=all(line.ok for line in lines),
        parameters=need and need.parameters,
        trained_parameters=need and need.trained,
        scoring_bytes=need and need.scoring,
        training_bytes=need and need.training,
        disk_bytes=disk,
        checks=lines,
    )


def _reach(
    asked: Question, settings: Settings, lines: list[ModelLine]
) -> tuple[ModelFiles | None, Path | HubModel | None]:
    """Up to the first refusal, which is the last line then."""
    name = "name"
    try:
        base = resolve_model(asked.model, asked.revision, settings)
        where = "a hub id that is accepted" if isinstance(base, HubModel) else "under a model root"
        lines.append(ModelLine(name=name, ok=True, found=where))
        name = "access"
        files = model_files(base)
        lines.append(ModelLine(name=name, ok=True, found="safetensors, no code of its own"))
        name = "tokenizer"
        if isinstance(base, Path):
            require_tokenizer(base)
        if not files.vocabulary:
            mend = "Choose a causal language model."
            found = "config.json has no vocab_size: not a language model"
            lines.append(ModelLine(name=name, ok=False, found=found, mend=mend))
            return None, None
        found = f"vocabulary of {files.vocabulary:,}"
        lines.append(ModelLine(name=name, ok=True, found=found))
    except UserError as error:
        lines.append(ModelLine(name=name, ok=False, found=error.message, mend=_mend(name, error)))
        return None, None
    return files, base


def _mend(name: str, error: UserError) -> str:
    cause = type(error.__cause__).__name__
    if cause in CAUSES:
        return CAUSES[cause]
    if "the hub does not answer" in error.message:
        return UNREACHABLE
    if name == "name":
        return (
            "Put its folder under one of FORGETTING_MODEL_ROOTS, or allow its hub id in "
            "FORGETTING_HUB_ALLOW."
        )
    if name == "tokenizer":
        return "Save the tokenizer into the folder: `tokenizer.save_pretrained(folder)`."
    return (
        "Save it as safetensors without code of its own: `model.save_pretrained(folder)` of a "
        "class that transformers has."
    )


def _lines(asked: Question, files: ModelFiles, need: Footprint) -> Iterator[ModelLine]:
    said = f"{need.parameters:,}; LoRA of rank {asked.rank} trains {need.trained:,}"
    yield ModelLine(name="parameters", ok=True, found=said)
    longest = files.max_positions
    if longest is not None and longest < asked.max_length:
        yield ModelLine(
            name="length",
            ok=False,
            found=f"it reads {longest} tokens; {asked.max_length} were asked for",
            mend=f"Ask with --max-length {longest}, and set training.max_length so.",
        )
    yield _memory("scoring", need.scoring, asked, "Take a larger GPU, or a smaller base.")
    shorter = (
        "Take a smaller training.max_length or training.lora.r, gradient_checkpointing: true, "
        "or a larger GPU."
    )
    yield _memory("training", need.training, asked, shorter)


def _memory(name: str, need: int, asked: Question, mend: str) -> ModelLine:
    found = f"about {gb(need)} at least, in {asked.dtype}"
    if asked.gpu_bytes is None:
        return ModelLine(name=name, ok=True, found=f"{found}; --gpu-memory says if it fits")
    fits = need <= asked.gpu_bytes
    found += f", of {gb(asked.gpu_bytes)}"
    if not fits and asked.dtype == "float32":
        mend = "Take bfloat16. " + mend
    return ModelLine(name=name, ok=fits, found=found, mend=None if fits else mend)


def _disk(need: Footprint, disk: int, settings: Settings) -> ModelLine:
    folder = settings.home.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free - settings.min_free_bytes
    fits = disk <= free
    found = (
        f"{gb(disk)} ({gb(need.run_disk)} of checkpoints a run, {gb(need.pass_disk)} of cache a "
        f"corpus), {gb(max(0, free))} free for it at the service's home"
    )
    mend = (
        None
        if fits
        else (
            "Free some, move FORGETTING_HOME, or lower FORGETTING_CACHE_MAX_BYTES; "
            "FORGETTING_MIN_FREE_BYTES is kept free."
        )
    )
    return ModelLine(name="disk", ok=fits, found=found, mend=mend)


def _to_fetch(base: Path | HubModel, files: ModelFiles) -> int:
    """Bytes that a worker has yet to download."""
    if isinstance(base, Path):
        return 0
    from service import hub

    return 0 if hub.is_cached(base.id, base.revision) else stored_bytes(files)


def gb(n_bytes: int) -> str:
    return f"{n_bytes / BYTES_PER_GB:,.1f} GB"
