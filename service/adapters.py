"""Whether a candidate fits its base, judged by headers and configs alone."""

from pathlib import Path
from typing import Any, Protocol

from service.errors import AdapterUnreadable, NotFound
from service.jobs import JobState
from service.lora import CONFIG, check_lora
from service.schemas.candidates import Foreign, JobAdapter, PathAdapter, UploadedAdapter
from service.settings import Settings
from service.sources import HubModel, resolve_folder, resolve_model
from service.store.rows import AdapterRow, JobRow
from service.weights import ModelFiles, folder_files

UNLEARNED = ("lm_head.weight", ".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")


class Finished(Protocol):
    """What is asked of the store about other jobs and about uploads."""

    def job(self, job_id: str) -> JobRow: ...

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]: ...

    def adapter(self, adapter_id: str) -> AdapterRow: ...


def check_adapter(
    adapter: JobAdapter | PathAdapter | UploadedAdapter,
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
    if isinstance(adapter, UploadedAdapter):
        if jobs is not None:
            rank = check_uploaded(adapter, files, jobs=jobs, param=f"{param}.id")
            check_rank(adapter, rank, name=adapter.id, param=param)
        return
    at = f"{param}.path"
    folder = resolve_folder(adapter.path, settings.model_roots, param=at)
    if (folder / CONFIG).exists():
        lora, _ = check_lora(folder, files, param=at)
        check_rank(adapter, lora.rank, name=adapter.path, param=param)
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


def check_uploaded(
    adapter: UploadedAdapter, base: ModelFiles, *, jobs: Finished, param: str
) -> int:
    """The adapter exists, and was checked against a base of this one's layout. Its rank."""
    try:
        uploaded = jobs.adapter(adapter.id)
    except NotFound as error:
        raise AdapterUnreadable(error.message, param=param) from error
    if uploaded.base_layout != base.layout:
        raise AdapterUnreadable(
            f"{adapter.id} was uploaded for {uploaded.base_model}, whose tensors have other names "
            "or shapes than this base's; upload it for this base",
            param=param,
            base_model=uploaded.base_model,
        )
    return uploaded.rank


def check_rank(adapter: Foreign, rank: int, *, name: str, param: str) -> None:
    """What the caller says of the rank, where anything is said, is so."""
    if adapter.rank not in (None, rank):
        said = f"rank is {adapter.rank}, where {CONFIG} of {name} says {rank}"
        raise AdapterUnreadable(said, param=f"{param}.rank", rank=rank)


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
