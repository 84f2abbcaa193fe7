"""Where names of models, adapters, datasets and corpora lead. Nothing here loads a weight.

A name is looked for under the allowed roots first, and only then taken for a hub id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import (
    AdapterUnreadable,
    CorpusUnreadable,
    DatasetUnreadable,
    ModelUnavailable,
    PathNotAllowed,
    UserError,
)
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


@dataclass(frozen=True)
class HubModel:
    id: str
    revision: str | None


def resolve_file(name: str, roots: Sequence[Path], *, param: str) -> Path:
    """The file that `name` means: under one of the roots, or absolute and inside one.

    Raises PathNotAllowed for anything that leaves the roots, links included, else the error of
    `param`'s kind when there is no such file.
    """
    found = find(name, roots, param=param)
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
    if not settings.allow_hub:
        raise ModelUnavailable(f"{why}; hub ids are switched off here", param=param)
    return HubModel(name, revision)


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
        return folder_files(resolved)
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
