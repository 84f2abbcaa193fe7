"""What a spec says that cannot work, found before anything is stored or a GPU is taken.

Only what follows from the spec, config.json, safetensors headers and the first MB of the data.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.adapters import Finished, check_adapter
from service.corpora import check_corpus
from service.errors import DatasetUnreadable, EngineUnavailable, InvalidSpec, ModelUnavailable
from service.foreign import Recipes, check_points
from service.gate_admission import Judged, check_policy
from service.pilot import children_of
from service.qualify import unsuited_adapter, unsuited_base
from service.remembered import Remembered
from service.rows import count_rows, detect, example, read_file
from service.schemas.candidates import PathAdapter
from service.schemas.spec import (
    MAX_HELD_OUT_ROWS,
    CandidatesSpec,
    Dataset,
    DatasetFormat,
    GateSpec,
    Lora,
    LossOn,
    Spec,
    SweepSpec,
    Training,
)
from service.settings import Settings
from service.sources import (
    find,
    is_hub_id,
    model_files,
    require_file,
    require_hub,
    resolve_folder,
    resolve_model,
    roots_of,
)
from service.weights import ModelFiles, require_tokenizer

FIRST_BYTES = 1_000_000
EMBEDS = re.compile(
    r"(^|\.)(lm_head|embed_out|output_projection|embed_\w+|word_embeddings|wte|wpe)$"
)


class Known(Finished, Recipes, Judged, Protocol):
    """What is asked of the store."""


def admit(spec: Spec, settings: Settings, *, jobs: Known | None = None) -> Spec:
    """The spec as it came, or a UserError whose `param` names the field.

    `jobs` answers for adapters of other jobs and for groups; without it those are not looked at.
    """
    if isinstance(spec, SweepSpec):
        children_of(spec)  # a pilot must fit its budget
    base = resolve_model(spec.base_model, spec.revision, settings)
    files = model_files(base)
    if isinstance(base, Path):
        require_tokenizer(base)
    if not files.vocabulary:
        raise ModelUnavailable(
            "config.json has no vocab_size: not a language model", param="base_model"
        )
    check_length(files, spec.evaluation.context, param="evaluation.context")
    check_corpus(spec.evaluation, settings, first_bytes=FIRST_BYTES)
    if isinstance(spec, CandidatesSpec):
        for param, adapter in spec.every_adapter.items():
            check_adapter(adapter, base, files, settings, jobs=jobs, param=param)
        check_engine(spec, files, settings)
        if spec.dataset is not None:
            check_length(files, spec.max_length, param="max_length")
            check_dataset(spec.dataset, spec.supervision, settings, within="")
        check_points(spec, jobs)
        if isinstance(spec, GateSpec):
            check_policy(spec, jobs)
        return spec
    check_engine(spec, files, settings)
    check_length(files, spec.training.max_length, param="training.max_length")
    check_targets(files, spec.training.lora)
    check_dataset(spec.dataset, spec.training, settings)
    return spec


def check_engine(spec: Spec, files: ModelFiles, settings: Settings) -> None:
    """Raises EngineUnavailable where vLLM is asked for and would score wrongly, as far as the
    files here tell; a job's or an uploaded adapter is looked at by the worker."""
    if spec.evaluation.engine != "vllm":
        return
    if isinstance(spec, GateSpec):
        said = "gates score a few windows at a time, by transformers; use auto or transformers"
        raise EngineUnavailable(said, param="evaluation.engine")
    why = unsuited_base(files)
    if why is not None:
        raise EngineUnavailable(
            f"vllm would not score this base rightly: {why}", param="evaluation.engine"
        )
    for i, adapter in enumerate(spec.adapters if isinstance(spec, CandidatesSpec) else ()):
        if isinstance(adapter, PathAdapter):
            param = f"adapters.{i}.path"
            folder = resolve_folder(adapter.path, settings.model_roots, param=param)
            why = unsuited_adapter(folder, param=param)
            if why is not None:
                said = f"vllm would not score {adapter.path} rightly: {why}; use auto"
                raise EngineUnavailable(said, param=param)


def check_length(files: ModelFiles, length: int, *, param: str) -> None:
    if files.max_positions is not None and length > files.max_positions:
        raise InvalidSpec(
            f"{param} is {length}; the model reads at most {files.max_positions} tokens",
            param=param,
            limit=files.max_positions,
        )


def check_targets(files: ModelFiles, lora: Lora) -> None:
    """Each name must be, or end, the name of a linear layer of the body, as PEFT matches them.

    A tied head has no tensor of its own, so heads and embeddings are known by their names.
    """
    if isinstance(lora.target_modules, str):
        return
    for i, target in enumerate(lora.target_modules):
        if EMBEDS.search(target):
            raise InvalidSpec(
                f"{target} is not a linear layer of the body: embeddings and the output head are "
                "not adapted, as the training loss reads the head directly and both may be one "
                "tensor",
                param=f"training.lora.target_modules.{i}",
            )
    if files.quantized:
        return
    layers = {
        name.removesuffix(".weight"): len(header.shape)
        for name, header in files.tensors.items()
        if name.endswith(".weight")
    }
    for i, target in enumerate(lora.target_modules):
        param = f"training.lora.target_modules.{i}"
        hit = [name for name in layers if name == target or name.endswith(f".{target}")]
        if not hit:
            known = sorted({name.rsplit(".", 1)[-1] for name, n in layers.items() if n == 2})
            raise InvalidSpec(
                f"no module of the model is named {target}; it has {', '.join(known[:30])}",
                param=param,
                known=known[:30],
            )
        if any(layers[name] < 2 for name in hit):
            raise InvalidSpec(f"{target} is not a linear layer", param=param)


def check_dataset(
    dataset: Dataset, training: Training, settings: Settings, *, within: str = "training."
) -> None:
    """Existence, format and, where the whole file was seen, length. Raises DatasetUnreadable.

    `within`: where in the spec the fields of `training` stand.
    """
    param = "dataset.path"
    found = find(dataset.path, settings.data_roots, param=param)
    if found is None and is_hub_id(dataset.path):
        why = f"no file named {dataset.path} under {roots_of(param)}"
        require_hub(dataset.path, settings, param=param, why=why)
        from service import hub

        hub.require_dataset(dataset.path, dataset.revision, error=DatasetUnreadable, param=param)
        return
    path = require_file(dataset.path, found, settings.data_roots, param=param)
    rows = _rows.of(
        (path, dataset.format, training.loss_on, within),
        [path],
        lambda: _first_rows(path, dataset.format, training.loss_on, within),
    )
    if rows.total is not None:
        _require_batch(rows.total, rows.distinct, training)


@dataclass(frozen=True)
class _Rows:
    """Of a data file."""

    total: int | None
    """None where it is too long to be counted here."""
    distinct: int
    """Of those that were read."""


_rows: Remembered[_Rows] = Remembered(size=256)


def _first_rows(path: Path, form: DatasetFormat, loss_on: LossOn, within: str) -> _Rows:
    chosen = None if form == "auto" else form
    n_rows, distinct = 0, set()
    for line, row in read_file(path, max_bytes=FIRST_BYTES):
        chosen = chosen or detect(row)
        one = example(row, chosen, line=line)
        if loss_on == "completion" and one.completion is None:
            raise DatasetUnreadable(
                f"line {line} has no completion to take the loss on: set loss_on to all",
                param=f"{within}loss_on",
                line=line,
            )
        n_rows += 1
        distinct.add(hash(repr(one)))
    total = count_rows(path)
    if total is None and path.stat().st_size <= FIRST_BYTES:
        total = n_rows
    return _Rows(total, len(distinct))


def _require_batch(n_rows: int, n_distinct: int, training: Training) -> None:
    """Held-out rows and one batch must be there; rows without copies are split exactly."""
    if n_rows == 0:
        raise DatasetUnreadable("the dataset has no rows", param="dataset.path", rows=0)
    held_out = 1
    if n_distinct == n_rows:
        held_out = min(MAX_HELD_OUT_ROWS, max(1, round(training.held_out * n_rows)))
    if n_rows - held_out < training.batch_size:
        raise DatasetUnreadable(
            f"{n_rows} rows, {held_out} of them held out, are fewer than one batch "
            f"of {training.batch_size}",
            param="dataset.path",
            rows=n_rows,
            held_out=held_out,
            batch_size=training.batch_size,
        )
