"""Where names of models, adapters, datasets and corpora lead. Nothing here loads a weight.

A name is looked for under the allowed roots first, and only then taken for a hub id.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from service.errors import (
    AdapterUnreadable,
    CorpusUnreadable,
    DatasetUnreadable,
    ModelUnavailable,
    PathNotAllowed,
    UserError,
)
from service.remembered import Remembered
from service.settings import Settings
from service.weights import ModelFiles, folder_files

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
WIKITEXT = "wikitext-103"
WIKITEXT_HUB = ("Salesforce/wikitext", "wikitext-103-raw-v1")
"""Hub id and configuration behind the alias."""

_MISSING: dict[str, type[UserError]] = {
    "base_model": ModelUnavailable,
    "adapters": AdapterUnreadable,
    "policy": AdapterUnreadable,
    "dataset": DatasetUnreadable,
    "evaluation": CorpusUnreadable,
}
_VARIABLE = {
    "base_model": "FORGETTING_MODEL_ROOTS",
    "adapters": "FORGETTING_MODEL_ROOTS",
    "policy": "FORGETTING_MODEL_ROOTS",
    "dataset": "FORGETTING_DATA_ROOTS",
    "evaluation": "FORGETTING_DATA_ROOTS",
}
"""Which setting names the roots of a field."""


_folders: Remembered[ModelFiles] = Remembered(size=64)


@dataclass(frozen=True)
class HubModel:
    id: str
    revision: str | None


def resolve_file(name: str, roots: Sequence[Path], *, param: str) -> Path:
    """The file that `name` means: under one of the roots, or absolute and inside one.

    Raises PathNotAllowed for anything that leaves the roots, links included, else the error of
    `param`'s kind when there is no such file.
    """
    return require_file(name, find(name, roots, param=param), roots, param=param)


def require_file(name: str, found: Path | None, roots: Sequence[Path], *, param: str) -> Path:
    """What `find` found, if it is a file. Raises the error of `param`'s kind."""
    if found is None or not found.is_file():
        raise _missing(param)(_why(name, found, roots, "file", param=param), param=param)
    return found


def resolve_model(name: str, revision: str | None, settings: Settings) -> Path | HubModel:
    """A folder under the model roots, or a hub id. Raises ModelUnavailable, PathNotAllowed."""
    param = "base_model"
    found = find(name, settings.model_roots, param=param)
    if found is not None and found.is_dir():
        stay_inside(found, settings.model_roots, param=param)
        return found
    why = _why(name, found, settings.model_roots, "folder", param=param)
    if found is not None or not is_hub_id(name):
        raise ModelUnavailable(why, param=param)
    require_hub(name, settings, param=param, why=why)
    return HubModel(name, revision)


def require_hub(name: str, settings: Settings, *, param: str, why: str = "") -> None:
    """Raises the error of `param`'s kind for a hub id that this service does not accept."""
    before = f"{why}; " if why else ""
    if not settings.hub_is_open:
        said = f"{before}hub ids are switched off here: FORGETTING_HUB_ALLOW names those to allow"
        raise _missing(param)(said, param=param)
    if settings.hub_allow and not any(fnmatchcase(name, one) for one in settings.hub_allow):
        said = f"{before}the hub id {name} matches nothing in FORGETTING_HUB_ALLOW"
        raise _missing(param)(said, param=param)


def needs_hub(spec: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a job takes anything from the hub: a name that is under no root."""
    named = [("base_model", spec["base_model"], settings.model_roots)]
    named.append(("evaluation.corpus", spec["evaluation"]["corpus"], settings.data_roots))
    if spec.get("dataset"):
        named.append(("dataset.path", spec["dataset"]["path"], settings.data_roots))
    return any(find(name, roots, param=param) is None for param, name, roots in named)


def resolve_folder(name: str, roots: Sequence[Path], *, param: str) -> Path:
    """Like `resolve_file`, for an adapter's or a model's folder."""
    found = find(name, roots, param=param)
    if found is None or not found.is_dir():
        raise _missing(param)(_why(name, found, roots, "folder", param=param), param=param)
    stay_inside(found, roots, param=param)
    return found


def model_files(resolved: Path | HubModel) -> ModelFiles:
    """config.json and the tensors' headers. Raises ModelUnavailable (`auto_map`, pickles, …)."""
    if isinstance(resolved, Path):
        # The names count too: a file that came or went is another list.
        entries = sorted(resolved.iterdir())
        key = (resolved, tuple(entry.name for entry in entries))
        return _folders.of(key, entries, lambda: folder_files(resolved))
    from service import hub  # huggingface_hub takes 0.3 s to import; local models never need it

    return hub.model_files(resolved.id, resolved.revision)


def is_wikitext(name: str) -> bool:
    return name == WIKITEXT


def is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None


def find(name: str, roots: Sequence[Path], *, param: str) -> Path | None:
    """The real path of `name`, which lies inside a root, or None where nothing has that name."""
    asked = Path(name)
    if ".." in asked.parts:
        raise PathNotAllowed(f"`..` is not allowed in a path: {name}", param=param)
    real_roots = [root.resolve() for root in roots]
    escapes = asked.is_absolute()
    for root in roots:
        candidate = asked if asked.is_absolute() else root / asked
        try:
            real = candidate.resolve(strict=True)
        except (OSError, RuntimeError):  # absent, too long, or a loop of links
            real = None
        if real is not None and any(real.is_relative_to(inside) for inside in real_roots):
            return real
        if real is not None:
            escapes = True
        elif candidate.is_absolute() and candidate.is_relative_to(root):
            escapes = False
    if escapes:
        why = f"lies outside the allowed roots{'' if roots else f': {_no_root(param)}'}"
        raise PathNotAllowed(f"{name} {why}", param=param)
    return None


def stay_inside(folder: Path, roots: Sequence[Path], *, param: str) -> None:
    """Raises PathNotAllowed if an entry of the folder is a link that leaves the roots."""
    real_roots = [root.resolve() for root in roots]
    for entry in folder.iterdir():
        if entry.is_symlink():
            real = entry.resolve()
            if not any(real.is_relative_to(inside) for inside in real_roots):
                raise PathNotAllowed(
                    f"{entry.name} in {folder.name} is a link out of the allowed roots",
                    param=param,
                )


def _missing(param: str) -> type[UserError]:
    return _MISSING[param.split(".")[0]]


def roots_of(param: str) -> str:
    return f"the allowed roots ({_VARIABLE[param.split('.')[0]]})"


def _no_root(param: str) -> str:
    return f"no root is configured for it; set {_VARIABLE[param.split('.')[0]]}"


def _why(name: str, found: Path | None, roots: Sequence[Path], kind: str, *, param: str) -> str:
    if found is not None:
        return f"{name} is not a {kind}"
    if not roots:
        return f"no {kind} named {name}: {_no_root(param)}"
    return f"no {kind} named {name} under {roots_of(param)}"
