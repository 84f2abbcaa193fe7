"""What an evaluate job measures: a job's checkpoint, what lies under a root, or an upload."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from service.schemas.fields import Label, Name, Strict


class JobAdapter(Strict):
    """A checkpoint that a job of ours kept. `step: null` is its last one."""

    job: Annotated[str, Field(pattern=r"^job_[0-9A-Za-z]{26}$")]
    step: int | None = Field(None, ge=1)


class Foreign(Strict):
    """An adapter of another trainer becomes a law point where all of `group`, `run`, `step` and the
    job's `dataset` are given."""

    step: int | None = Field(None, ge=1, le=2**31 - 1, description="Update steps it was trained.")
    rank: int | None = Field(
        None, ge=1, description="null: as adapter_config.json says; anything else is refused."
    )
    run: Annotated[Label, Field(max_length=128)] | None = Field(
        None, description="Name of the training run. Checkpoints of one run share it, in any job."
    )
    group: Annotated[Label, Field(max_length=512)] | None = Field(
        None,
        description="Whose law: the digest `sha256:…` of a stored recipe group that the adapter "
        "was trained like, or a label of your own, the same for adapters of one recipe.",
    )


class PathAdapter(Foreign):
    """A PEFT adapter, or a full model of the same vocabulary, under an allowed root."""

    path: Name


class UploadedAdapter(Foreign):
    """A PEFT adapter that came by `POST /adapters`."""

    id: Annotated[str, Field(pattern=r"^adp_[0-9A-Za-z]{26}$")]


def _kind(value: Any) -> str:
    """So that a fault is told of the kind that was meant."""
    if not isinstance(value, dict):
        return type(value).__name__
    if "job" in value:
        return JobAdapter.__name__
    return UploadedAdapter.__name__ if "id" in value else PathAdapter.__name__


Candidate = Annotated[
    Annotated[JobAdapter, Tag(JobAdapter.__name__)]
    | Annotated[PathAdapter, Tag(PathAdapter.__name__)]
    | Annotated[UploadedAdapter, Tag(UploadedAdapter.__name__)],
    Discriminator(_kind),
]
