"""Artifacts leave and enter: whole folders to and from any fsspec URL, with a sha256 per file.

An attempt writes only under its own prefix; the row that `Store.finish` writes is what makes it
visible, so a stale attempt's uploads are never seen.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from service.errors import AdapterUnreadable, NotFinished, NotFound, SystemFault
from service.lora import CONFIG, WEIGHTS, adapter_digest
from service.schemas.candidates import JobAdapter, UploadedAdapter
from service.schemas.spec import CandidatesSpec, EvaluateSpec, GateSpec
from service.settings import Settings
from service.store import Claim, Store
from worker.copying import Check, copy, unwatched

SCORING: dict[str, type[CandidatesSpec]] = {"evaluate": EvaluateSpec, "gate": GateSpec}
"""Jobs that score adapters of others."""


def prefix_of(claim: Claim) -> str:
    """Where an attempt's artifacts lie, relative to `settings.artifacts`."""
    return f"{claim.job_id}/{claim.attempt}"


def publish(
    folder: Path, prefix: str, settings: Settings, check: Check = unwatched
) -> list[dict[str, Any]]:
    """Uploads every file under `folder`; returns {name, bytes, sha256} for each, by name.

    Raises what `check` does, between two chunks; what was uploaded by then stays.
    """
    fs, root = fsspec.core.url_to_fs(_url(prefix, settings))
    published = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        remote = f"{root}/{name}"
        fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
        with path.open("rb") as source, fs.open(remote, "wb") as target:
            size, digest = copy(source, target, check)
        if fs.size(remote) != size:
            raise SystemFault(f"{name}: {fs.size(remote)} of {size} bytes arrived at {remote}")
        published.append({"name": name, "bytes": size, "sha256": digest})
    return published


def withdraw(prefix: str, settings: Settings) -> None:
    """Deletes what a stale attempt uploaded."""
    fs, root = fsspec.core.url_to_fs(_url(prefix, settings))
    if fs.exists(root):
        fs.rm(root, recursive=True)


def fetch_adapters(
    store: Store,
    spec: Mapping[str, Any],
    workdir: Path,
    settings: Settings,
    check: Check = unwatched,
) -> dict[str, Path]:
    """Local folders of the adapters that other jobs kept, by "job_…:step" or "job_…:last", and
    of uploaded ones, by "adp_…".

    Raises AdapterUnreadable, which names the spec's field, and what `check` does.
    """
    if spec["type"] not in SCORING:
        return {}
    folders: dict[str, Path] = {}
    for param, adapter in SCORING[spec["type"]].model_validate(spec).every_adapter.items():
        if isinstance(adapter, JobAdapter):
            key = f"{adapter.job}:{adapter.step or 'last'}"
            folder = workdir / "adapters" / key.replace(":", "-")
            _fetch(store, adapter, folder, settings, check, param=param)
            folders[key] = folder
        elif isinstance(adapter, UploadedAdapter):
            folder = workdir / "adapters" / adapter.id
            _fetch_upload(store, adapter.id, folder, settings, check, param=f"{param}.id")
            folders[adapter.id] = folder
    return folders


def _fetch(
    store: Store,
    adapter: JobAdapter,
    folder: Path,
    settings: Settings,
    check: Check,
    *,
    param: str,
) -> None:
    try:
        job = store.job(adapter.job)
        kept = store.result(adapter.job)["checkpoints"]
    except (NotFound, NotFinished) as error:
        raise AdapterUnreadable(error.message, param=param) from error
    steps = [checkpoint["step"] for checkpoint in kept]
    wanted = adapter.step if adapter.step is not None else steps[-1]
    if wanted not in steps:
        raise AdapterUnreadable(
            f"{adapter.job} kept no adapter at step {wanted}; it kept {steps}",
            param=param,
            steps=steps,
        )
    name = kept[steps.index(wanted)]["adapter"]
    files = [file for file in store.artifacts(adapter.job) if within(file["name"], name)]
    if not files or job.artifacts_prefix is None:
        raise AdapterUnreadable(f"{adapter.job} published no {name}", param=param)
    shutil.rmtree(folder, ignore_errors=True)
    fs, root = fsspec.core.url_to_fs(_url(job.artifacts_prefix, settings))
    for file in files:
        local = folder / PurePosixPath(file["name"]).relative_to(name)
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fs.open(f"{root}/{file['name']}", "rb") as source, local.open("wb") as target:
                _, digest = copy(source, target, check)
        except FileNotFoundError as error:
            raise AdapterUnreadable(
                f"{file['name']} of {adapter.job} is gone from the artifact store", param=param
            ) from error
        if digest != file["sha256"]:
            raise AdapterUnreadable(
                f"{file['name']} of {adapter.job} is not what was published: its digest differs",
                param=param,
            )


def _fetch_upload(
    store: Store, adapter_id: str, folder: Path, settings: Settings, check: Check, *, param: str
) -> None:
    try:
        uploaded = store.adapter(adapter_id)
    except NotFound as error:
        raise AdapterUnreadable(error.message, param=param) from error
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fs, root = fsspec.core.url_to_fs(_url(uploaded.prefix, settings))
    digests = {}
    for name in (CONFIG, WEIGHTS):
        try:
            with fs.open(f"{root}/{name}", "rb") as source, (folder / name).open("wb") as target:
                _, digests[name] = copy(source, target, check)
        except FileNotFoundError as error:
            said = f"{name} of {adapter_id} is gone from the artifact store"
            raise AdapterUnreadable(said, param=param) from error
    if adapter_digest(digests) != uploaded.digest:
        said = f"{adapter_id} is not what was uploaded: its digest differs"
        raise AdapterUnreadable(said, param=param)


def within(name: str, folder: str) -> bool:
    """Whether an artifact's name lies in `folder`, without `..`."""
    path = PurePosixPath(name)
    return path.is_relative_to(folder) and ".." not in path.parts


def _url(prefix: str, settings: Settings) -> str:
    return f"{settings.artifacts.rstrip('/')}/{prefix}"
