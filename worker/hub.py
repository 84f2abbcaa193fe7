"""What a job takes from the Hugging Face hub, and who is to blame when it does not come.

Unknown, gated or malformed is the caller's to mend. A hub that is away or in trouble is not: that
is a SystemFault, which is tried again. A full disk stays the OSError that it is.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from datasets.exceptions import DatasetsError, FileNotFoundDatasetsError
from huggingface_hub import hf_hub_download, is_offline_mode, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    DisabledRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from service.errors import ModelUnavailable, SystemFault, UserError
from service.sources import HubModel
from service.weights import folder_files, read_json
from worker.digest import TOKENIZER

ETAG_SECONDS = 10.0
PATTERNS = ["*.json", "model*.safetensors", *TOKENIZER]
"""Not every *.safetensors: some repositories hold the same weights in a second layout."""
USERS = (
    RepositoryNotFoundError,  # gated ones too
    RevisionNotFoundError,
    RemoteEntryNotFoundError,
    DisabledRepoError,
    HFValidationError,
    FileNotFoundDatasetsError,
)
AWAY = (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    XetDownloadError,
    httpx2.HTTPError,
    ConnectionError,
    TimeoutError,
)
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def model_folder(
    model: HubModel, *, cache_dir: Path = Path(HF_HUB_CACHE), endpoint: str | None = None
) -> Path:
    """The snapshot of a hub's model, whole: what is cached is kept, what is missing is fetched.

    Raises ModelUnavailable (unknown, gated, code of its own, no safetensors), SystemFault (the
    hub does not answer), OSError (disk full).
    """
    with fetching(model.id, ModelUnavailable, param="base_model"):
        folder = Path(
            snapshot_download(
                model.id,
                revision=model.revision,
                cache_dir=cache_dir,
                allow_patterns=PATTERNS,
                etag_timeout=ETAG_SECONDS,
                endpoint=endpoint,
            )
        )
        # Where the hub is away, an interrupted download may come back as if it were whole.
        for name in _wanted(folder):
            if not (folder / name).is_file():
                hf_hub_download(
                    model.id,
                    name,
                    revision=folder.name,
                    cache_dir=cache_dir,
                    etag_timeout=ETAG_SECONDS,
                    endpoint=endpoint,
                )
    folder_files(folder)
    return folder


@contextmanager
def fetching(name: str, error: type[UserError], *, param: str) -> Iterator[None]:
    """Turns what the hub's libraries raise into `error`, SystemFault, or the disk's OSError."""
    try:
        yield
    except (*USERS, *AWAY, OSError, ValueError, RuntimeError, DatasetsError) as cause:
        causes = list(_chain(cause))
        for one in causes:
            if isinstance(one, OSError) and one.errno in DISK_FULL:
                raise OSError(one.errno, f"{name}: {one.strerror}") from cause
        said = f"{name}: {cause}"
        if any(isinstance(one, USERS) for one in causes):
            raise error(said, param=param) from cause
        if any(isinstance(one, AWAY) for one in causes):
            if is_offline_mode():
                raise error(f"{said} (the hub is switched off here)", param=param) from cause
            raise SystemFault(said) from cause
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise SystemFault(said) from cause
        raise error(said, param=param) from cause


def _wanted(folder: Path) -> list[str]:
    """Names of the files without which the snapshot is no model."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return ["config.json", "model.safetensors"]
    places = read_json(index, error=ModelUnavailable, param="base_model").get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    return ["config.json", *sorted(name for name in names if isinstance(name, str))]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, as a traceback would show them."""
    while error is not None:
        yield error
        context = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or context
