"""Whether a candidate fits its base, judged by headers and configs alone."""

from pathlib import Path
from typing import Any, Protocol

from service.errors import AdapterUnreadable, NotFound
from service.jobs import JobState
from service.schemas.spec import JobAdapter, PathAdapter
from service.settings import Settings
from service.sources import HubModel, resolve_folder, resolve_model
from service.store.rows import JobRow
from service.weights import PICKLED, ModelFiles, TensorHeader, folder_files, read_header, read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
MAX_RANK = 65_536
UNLEARNED = ("lm_head.weight", ".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
TRANSPOSED = frozenset({"gpt2", "openai-gpt"})
"""Models whose linear layers keep their weights as (in, out)."""


class Finished(Protocol):
    """What is asked of the store about other jobs."""

    def job(self, job_id: str) -> JobRow: ...

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]: ...


def check_adapter(
    adapter: JobAdapter | PathAdapter,
    base: Path | HubModel,
    files: ModelFiles,
    settings: Settings,
    *,
    jobs: Finished | None,
    param: str,
) -> None:
    """Raises AdapterUnreadable, PathNotAllowed."""
    if isinstance(adapter, JobAdapter):
        if jobs is not None:
            check_job(adapter, base, settings, jobs=jobs, param=param)
        return
    at = f"{param}.path"
    folder = resolve_folder(adapter.path, settings.model_roots, param=at)
    if (folder / CONFIG).exists():
        rank = check_lora(folder, files, param=at)
        if adapter.rank not in (None, rank):
            said = f"rank is {adapter.rank}, where {CONFIG} of {adapter.path} says {rank}"
            raise AdapterUnreadable(said, param=f"{param}.rank", rank=rank)
    elif (folder / "config.json").exists():
        check_model(folder, files, param=at)
        for name in ("rank", "run", "group"):
            if getattr(adapter, name) is not None:
                said = f"{adapter.path} is a full model; only LoRA adapters are law points"
                raise AdapterUnreadable(said, param=f"{param}.{name}")
    else:
        said = f"{adapter.path} has neither {CONFIG} nor config.json"
        raise AdapterUnreadable(said, param=at)


def check_job(
    adapter: JobAdapter, base: Path | HubModel, settings: Settings, *, jobs: Finished, param: str
) -> None:
    """The job exists, succeeded, kept that step, and had the same base."""
    try:
        job = jobs.job(adapter.job)
    except NotFound as error:
        raise AdapterUnreadable(error.message, param=f"{param}.job") from error
    if job.type != "finetune":
        said = f"{adapter.job} is of type {job.type}; only finetune jobs keep adapters"
        raise AdapterUnreadable(said, param=f"{param}.job")
    if job.state is not JobState.SUCCEEDED:
        said = f"{adapter.job} is {job.state}; its adapters are there once it has succeeded"
        raise AdapterUnreadable(said, param=f"{param}.job", status=job.state)
    steps = [kept["step"] for kept in jobs.checkpoints(adapter.job)]
    if adapter.step is not None and adapter.step not in steps:
        raise AdapterUnreadable(
            f"{adapter.job} kept no checkpoint of step {adapter.step}; it kept {steps}",
            param=f"{param}.step",
            steps=steps,
        )
    if resolve_model(job.spec["base_model"], job.spec["revision"], settings) != base:
        said = f"{adapter.job} was trained on another base: {job.spec['base_model']}"
        raise AdapterUnreadable(said, param=f"{param}.job", base_model=job.spec["base_model"])


def check_model(folder: Path, base: ModelFiles, *, param: str) -> None:
    """A full model as candidate: readable, of the base's vocabulary, and where it is of the base's
    kind with the same tensors."""
    files = folder_files(folder, error=AdapterUnreadable, param=param)
    if files.vocabulary != base.vocabulary:
        said = f"the model's vocabulary is {files.vocabulary}, the base's {base.vocabulary}"
        raise AdapterUnreadable(said, param=param)
    alike = files.config.get("model_type") == base.config.get("model_type")
    if not alike or files.quantized or base.quantized:
        return
    ours, theirs = _learned(base), _learned(files)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            said = f"{name} is {_shape(theirs.get(name))} in the model, {_shape(ours.get(name))}"
            raise AdapterUnreadable(f"{said} in the base", param=param, tensor=name)


def _learned(files: ModelFiles) -> dict[str, tuple[int, ...]]:
    """Shapes by name without the body's prefix. A head may be tied and absent, and old
    checkpoints keep masks and rotary frequencies, which no model reads."""
    return {
        name.removeprefix("model.").removeprefix("transformer."): header.shape
        for name, header in files.tensors.items()
        if not name.endswith(UNLEARNED)
    }


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)


def check_lora(folder: Path, base: ModelFiles, *, param: str) -> int:
    """Safetensors and JSON only, of PEFT type LORA, with shapes that fit the base. Its rank."""
    config = read_json(folder / CONFIG, error=AdapterUnreadable, param=param)
    if config.get("peft_type") != "LORA":
        said = f"peft_type is {str(config.get('peft_type'))[:64]}; only LORA is scored"
        raise AdapterUnreadable(said, param=param)
    if config.get("megatron_config") or "auto_map" in config:
        # PEFT would import the module that `megatron_core` names.
        raise AdapterUnreadable(f"{CONFIG} would load code of its own", param=param)
    if config.get("bias", "none") != "none":
        said = f"bias is {str(config['bias'])[:64]!r} in {CONFIG}; only 'none' is scored: "
        raise AdapterUnreadable(f"{said}others rewrite the base's own biases", param=param)
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
        raise AdapterUnreadable(f"{CONFIG} has no usable rank `r`", param=param)
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLED)
        said = f"{pickled[0]} is pickled, which can run code; " if pickled else ""
        raise AdapterUnreadable(f"{said}the folder has no {WEIGHTS}", param=param)
    tensors = read_header(folder / WEIGHTS, error=AdapterUnreadable, param=param)
    if not any(".lora_" in name for name in tensors):
        raise AdapterUnreadable(f"{WEIGHTS} holds no LoRA weight", param=param)
    one_rank = not config.get("rank_pattern")
    for name, header in tensors.items():
        why = misfit(name, header, tensors, base, rank=rank if one_rank else None)
        if why is not None:
            said = f"{name} does not fit the base: {why}"
            raise AdapterUnreadable(said, param=param, tensor=name)
    return rank


def misfit(
    name: str,
    header: TensorHeader,
    tensors: dict[str, TensorHeader],
    base: ModelFiles,
    *,
    rank: int | None,
) -> str | None:
    """Why one LoRA matrix cannot be added to the base; None if it can, or cannot be judged.

    A is (r, in) and B is (out, r), so that B A has the shape of the base's weight (out, in).
    """
    module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
    if part.removesuffix(".weight") not in ("A", "B"):
        return None
    weight = find_weight(module, base)
    if weight is None:
        return f"the base has no {module}"
    if len(header.shape) != 2:
        return f"{len(header.shape)} dimensions"
    is_a = part.startswith("A")
    inner, outer = header.shape if is_a else header.shape[::-1]
    if rank is not None and inner != rank:
        return f"rank {inner}, where {CONFIG} says {rank}"
    other = name.replace(".lora_A", ".lora_B") if is_a else name.replace(".lora_B", ".lora_A")
    if other not in tensors:
        return f"{other} is missing"
    if base.quantized or len(weight.shape) != 2:
        return None
    rows, columns = weight.shape
    if base.config.get("model_type") in TRANSPOSED:
        rows, columns = columns, rows
    expected = columns if is_a else rows
    if outer != expected:
        return f"{outer} features, where the base has {expected}"
    return None


def find_weight(module: str, base: ModelFiles) -> TensorHeader | None:
    """By full name; a tied output layer is its embedding; else the one name that ends alike."""
    name = f"{module}.weight"
    if name in base.tensors:
        return base.tensors[name]
    if module.rpartition(".")[2] == "lm_head":
        inputs = [n for n in base.tensors if n.endswith(("embed_tokens.weight", "wte.weight"))]
        return base.tensors[inputs[0]] if inputs else None
    # Checkpoints and modules may differ by a prefix: `model.`, `transformer.`, `language_model.`
    tail = module.split(".", 1)[-1]
    alike = [n for n in base.tensors if n.endswith(f"{tail}.weight")]
    return base.tensors[alike[0]] if len(alike) == 1 else None
