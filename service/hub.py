"""What the Hugging Face hub knows of a name: its local cache first, then 3 seconds of network.

No call here retries: it happens inside a request.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import (
    HF_HUB_CACHE,
    SAFETENSORS_INDEX_FILE,
    SAFETENSORS_SINGLE_FILE,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)

from service.errors import ModelUnavailable, UserError
from service.sources import roots_of
from service.weights import (
    ModelFiles,
    TensorHeader,
    folder_files,
    refuse_code,
    weight_names,
)

TIMEOUT_SECONDS = 3.0
PARALLEL = 8
"""Headers of shards that are read at a time."""


def model_files(
    name: str,
    revision: str | None,
    *,
    cache_dir: Path = Path(HF_HUB_CACHE),
    endpoint: str | None = None,
) -> ModelFiles:
    """Raises ModelUnavailable: unknown, unreachable, with code of its own, or pickled."""
    snapshot = cached_snapshot(name, revision, cache_dir=cache_dir)
    if snapshot is not None:
        return folder_files(snapshot)
    api = HfApi(endpoint=endpoint)
    with _answers(name, "model", ModelUnavailable, "base_model"):
        info = api.model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
        files = {sibling.rfilename for sibling in info.siblings or []}
        if "config.json" not in files:
            raise ModelUnavailable(f"model {name} has no config.json", param="base_model")
        config = _json(api, name, "config.json", info.sha)
        refuse_code(config, sorted(files), ModelUnavailable, "base_model")
        shards = _shards(api, name, files, info.sha)
        with ThreadPoolExecutor(PARALLEL) as pool:
            headers = list(
                pool.map(
                    lambda shard: api.parse_safetensors_file_metadata(
                        name, shard, revision=info.sha, timeout=TIMEOUT_SECONDS
                    ),
                    shards,
                )
            )
    tensors = {
        tensor: TensorHeader(str(one.dtype), tuple(one.shape))
        for found in headers
        for tensor, one in found.tensors.items()
    }
    return ModelFiles(config, tensors)


def _shards(api: HfApi, name: str, files: set[str], commit: str | None) -> list[str]:
    """Names of the safetensors files that make up the model."""
    if SAFETENSORS_SINGLE_FILE in files:
        return [SAFETENSORS_SINGLE_FILE]
    if SAFETENSORS_INDEX_FILE not in files:
        raise NotASafetensorsRepoError(name)
    places = _json(api, name, SAFETENSORS_INDEX_FILE, commit).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SafetensorsParsingError(f"{SAFETENSORS_INDEX_FILE} has no `weight_map`")
    return sorted({str(shard) for shard in places.values()})


def _json(api: HfApi, name: str, file: str, commit: str | None) -> dict[str, Any]:
    """One small file. Not by hf_hub_download, which tries six times over half a minute."""
    url = hf_hub_url(name, file, revision=commit, endpoint=api.endpoint)
    response = get_session().get(url, headers=build_hf_headers(), timeout=TIMEOUT_SECONDS)
    hf_raise_for_status(response)
    value = response.json()
    if not isinstance(value, dict):
        raise ValueError(f"{file} is not a JSON object")
    return value


def require_dataset(
    name: str,
    revision: str | None,
    *,
    error: type[UserError],
    param: str,
    cache_dir: Path = Path(HF_HUB_CACHE),
) -> None:
    """Raises `error` unless the hub, or what was downloaded from it, has this dataset."""
    if (cache_dir / f"datasets--{name.replace('/', '--')}" / "snapshots").is_dir():
        return
    with _answers(name, "dataset", error, param):
        HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS)


def is_cached(name: str, revision: str | None, *, cache_dir: Path = Path(HF_HUB_CACHE)) -> bool:
    """Whether the model lies whole on this machine."""
    return cached_snapshot(name, revision, cache_dir=cache_dir) is not None


def cached_snapshot(name: str, revision: str | None, *, cache_dir: Path) -> Path | None:
    """Folder of the downloaded model, if it is whole: its config and every file of its weights."""
    found = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir, revision=revision)
    if not isinstance(found, str):
        return None
    snapshot = Path(found).parent
    try:
        weight_names(snapshot, error=ModelUnavailable, param="base_model")
    except ModelUnavailable:  # an interrupted download: the hub knows the rest
        return None
    return snapshot


@contextmanager
def _answers(name: str, kind: str, error: type[UserError], param: str) -> Iterator[None]:
    """Turns what the hub may do to us into `error`, with a sentence that says what to mend."""
    try:
        yield
    except GatedRepoError as cause:
        said = f"{kind} {name} is gated: the service's hub token has no access"
        raise error(said, param=param) from cause
    except RevisionNotFoundError as cause:
        raise error(f"{kind} {name} has no such revision", param="revision") from cause
    except (RepositoryNotFoundError, HFValidationError) as cause:
        said = f"no {kind} {name} under {roots_of(param)} or on the hub"
        raise error(said, param=param) from cause
    except (NotASafetensorsRepoError, SafetensorsParsingError) as cause:
        said = f"{kind} {name} has no readable safetensors; pickled weights are refused"
        raise error(said, param=param) from cause
    except (OfflineModeIsEnabled, httpx2.HTTPError, OSError, ValueError) as cause:
        said = (
            f"no {kind} {name} under {roots_of(param)} or in the hub cache, "
            f"and the hub does not answer ({type(cause).__name__})"
        )
        raise error(said, param=param) from cause
