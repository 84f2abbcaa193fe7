"""What the store hands out. Times are epoch seconds of the database's clock."""

from dataclasses import dataclass, field
from typing import Any

from service.jobs import JobState


@dataclass(frozen=True)
class JobRow:
    id: str
    type: str
    state: JobState
    spec: dict[str, Any]
    phase: str | None
    progress: dict[str, Any] | None
    attempt: int
    failures: int
    """Lost workers and retried faults; a release is none."""
    cancel_requested: bool
    created_at: float
    started_at: float | None
    """First start, whichever attempt."""
    finished_at: float | None
    sweep_id: str | None
    error: dict[str, Any] | None
    metadata: dict[str, str]
    owner: str | None
    artifacts_prefix: str | None
    verdict: str | None
    """Of a gate that has succeeded."""


@dataclass(frozen=True)
class ChildRow:
    """What a sweep's view tells of one child."""

    id: str
    state: JobState
    spec: dict[str, Any]
    phase: str | None
    progress: dict[str, Any] | None
    attempt: int
    error: dict[str, Any] | None
    seconds: float | None
    """Since its first start, until its end or now; never negative."""
    start_up: float | None
    """Seconds of them before its first step was reported; None before that."""


@dataclass(frozen=True)
class Claim:
    """The right to report on one attempt, until its lease is lost."""

    job_id: str
    attempt: int
    lease_token: str
    spec: dict[str, Any]
    owner: str | None


@dataclass(frozen=True)
class EventRow:
    id: int
    """Rises within its job."""
    at: float
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class MetricRow:
    step: int
    value: float | None
    at: float


@dataclass(frozen=True)
class AdapterRow:
    """An uploaded adapter."""

    id: str
    owner: str
    digest: str
    """Of its two files."""
    base_model: str
    revision: str | None
    base_layout: str
    """Layout of the base that it was checked against."""
    rank: int
    trainable_params: int
    bytes: int
    prefix: str
    """Where its files lie, relative to `settings.artifacts`."""
    created_at: float


@dataclass(frozen=True)
class KeyRow:
    """An API key, without its secret."""

    id: str
    digest: str
    owner: str
    name: str
    scopes: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    live: bool
    """Neither revoked nor expired, by the database's clock."""
    stale: bool
    """Its `last_used_at` is to be written again."""


@dataclass(frozen=True)
class WorkerRow:
    name: str
    state: str
    """busy or idle."""
    job_id: str | None
    info: dict[str, Any]
    beaten_at: float


@dataclass(frozen=True)
class PointGroup:
    """Stored points that share one recipe."""

    group: str
    recipe: dict[str, Any]
    points: list[dict[str, Any]] = field(default_factory=list)
    """Each with the fields of `laws.quantities.Point`."""
