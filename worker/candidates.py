"""What is measured against the base: a run's own checkpoints, or what came from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import AdapterUnreadable
from service.schemas.candidates import JobAdapter, PathAdapter, UploadedAdapter
from service.schemas.spec import CandidatesSpec
from service.settings import Settings
from service.sources import resolve_folder
from worker.adapter import read_config, trainable_params
from worker.digest import ADAPTER, digest_folder
from worker.model import is_adapter, weights_digest
from worker.watch import SavedAdapter


@dataclass(frozen=True)
class Candidate:
    name: str
    """Artifact name of the folder, or what the spec called it."""
    folder: Path
    step: int | None
    rank: int | None
    """Null for a full model."""
    trainable_params: int | None
    train_loss: float | None
    param: str
    """The field to blame if it cannot be used."""

    @property
    def digest(self) -> str:
        if self.rank is None:
            return weights_digest(self.folder)
        return digest_folder(self.folder, ADAPTER)


def of_run(saved: Sequence[SavedAdapter], artifacts: Path, *, rank: int) -> list[Candidate]:
    """A finetune job's measured checkpoints, in order of steps."""
    return [
        Candidate(
            name=adapter.path.relative_to(artifacts).as_posix(),
            folder=adapter.path,
            step=adapter.step,
            rank=rank,
            trainable_params=adapter.trainable_params,
            train_loss=adapter.train_loss,
            param="training",
        )
        for adapter in saved
    ]


def of_spec(
    spec: CandidatesSpec, adapters: Mapping[str, Path], settings: Settings
) -> list[Candidate]:
    """What a job is to score, in the order of `every_adapter`.

    Raises AdapterUnreadable, PathNotAllowed.

    `adapters`: local folders of what other jobs kept, by `job_…:step` or `job_…:last`, and of
    uploaded ones, by `adp_…`.
    """
    found = []
    for param, wanted in spec.every_adapter.items():
        name, folder = _locate(wanted, adapters, settings, param)
        lora = is_adapter(folder)
        found.append(
            Candidate(
                name=name,
                folder=folder,
                step=wanted.step,
                rank=read_config(folder).r if lora else None,
                trainable_params=trainable_params(folder) if lora else None,
                train_loss=None,
                param=param,
            )
        )
    return found


def _locate(
    wanted: JobAdapter | PathAdapter | UploadedAdapter,
    adapters: Mapping[str, Path],
    settings: Settings,
    param: str,
) -> tuple[str, Path]:
    if isinstance(wanted, PathAdapter):
        return wanted.path, resolve_folder(wanted.path, settings.model_roots, param=param)
    uploaded = isinstance(wanted, UploadedAdapter)
    name = wanted.id if uploaded else f"{wanted.job}:{wanted.step or 'last'}"
    if name not in adapters:
        raise AdapterUnreadable(f"{name} was not brought to this worker", param=param)
    return name, adapters[name]
