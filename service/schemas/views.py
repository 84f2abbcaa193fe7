"""Jobs and what hangs on them, as clients see them. Times are RFC 3339 UTC."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from service.jobs import FailureClass, JobState, Phase
from service.laws.verdict import Verdict
from service.schemas.result import JobLaw, View
from service.schemas.spec import Spec

T = TypeVar("T")


class Page(View, Generic[T]):
    """One page; pass the last item's id as `after` for the next."""

    data: list[T]
    has_more: bool


class Progress(View):
    """`done` of `total` `unit` in the current phase."""

    done: float
    total: float
    unit: str


class JobError(View):
    code: str
    detail: str
    class_: FailureClass = Field(alias="class", serialization_alias="class")
    param: str | None = None
    details: dict[str, Any] = Field({})


class SweepChildren(View):
    total: int
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class SweepWork(View):
    """How far a sweep is as one job."""

    share_done: float
    """Of all its work, 0 to 1: steps, and checkpoints measured, of its children together. A child
    counts as far as it is; one that has ended, failed too, counts whole."""
    eta_seconds: float | None
    """Until its last child ends, if as many workers go on as are at it now. Null until a child
    tells the pace, and while none runs."""


class FailedChild(View):
    job: str
    rank: int
    seed: int
    learning_rate: float
    code: str
    detail: str


class FarCorner(View):
    """What a pilot is to predict: the largest rank at the end of a whole run."""

    rank: int
    step: int


class PilotView(View):
    share_of_cost: float
    """What the pilot costs of the whole sweep at most, however long a pass takes."""
    ranks: list[int]
    seeds: list[int]
    steps: list[int]
    """Measured steps; the last one is where its runs end."""
    far_corner: FarCorner
    extend: str
    """POST here to go on with the rest of the sweep."""
    extended_by: str | None
    """Id of the sweep that did."""


class Job(View):
    id: str
    type: Literal["finetune", "evaluate", "sweep", "gate"]
    status: JobState
    phase: Phase | None
    progress: Progress | None
    attempt: int
    failures: int
    cancel_requested: bool
    created_at: str
    started_at: str | None
    finished_at: str | None
    sweep: str | None
    """Id of the sweep that this job is a child of."""
    children: SweepChildren | None
    """Of sweeps: how many children stand where."""
    verdict: Verdict | None = None
    """Of gates, as `GET /gates/{id}` has it."""
    failed_children: list[FailedChild] | None = Field(None, max_length=20)
    """Of sweeps: the first 20 that failed, and why. The law is fitted without them."""
    work: SweepWork | None = None
    """Of sweeps."""
    pilot: PilotView | None = None
    """Of pilot sweeps."""
    extends: str | None = None
    """Id of the pilot that this sweep goes on from; what that measured is not run again."""
    error: JobError | None
    law: JobLaw | None
    """Of one finished job: did it forget more than its recipe's law expects? Null in lists."""
    law_reason: str | None
    """Why a job with law points has no `law` yet."""
    metadata: dict[str, str]
    spec: Annotated[Spec, Field(discriminator="type")]


class Event(View):
    """Kinds: `status`, `phase`, `progress`, `metric`, `checkpoint`, `log`, and last `done`."""

    id: int
    at: str
    kind: str
    data: dict[str, Any]


class MetricPoint(View):
    step: int
    value: float | None
    at: str


class Metrics(View):
    """Series by name: train_loss, learning_rate, grad_norm, heldout_loss, kl, ce_soft."""

    series: dict[str, list[MetricPoint]]


class CheckpointView(View):
    """One measured step, as soon as it is saved; its scores fill in later."""

    step: int | None
    adapter: str
    trainable_params: int | None
    rank: int | None
    train_loss: float | None
    heldout_loss: float | None
    kl: float | None
    ce_soft: float | None
    same_top: float | None
    delta_norm: float | None = None


class Artifact(View):
    name: str
    bytes: int
    sha256: str


class Adapter(View):
    """An uploaded adapter, which an `evaluate` job names as `{"id": "adp_…"}`."""

    id: str
    digest: str
    """Of its two files; a result's `provenance.adapter`."""
    base_model: str
    revision: str | None
    base_layout: str
    """Names and shapes of the base's tensors, which the adapter was checked against."""
    rank: int
    trainable_params: int
    bytes: int
    created_at: str


class Check(View):
    ok: bool
    detail: str


class Readiness(View):
    """Can a job that is submitted now be run? Each part with its word."""

    status: Literal["ready", "not_ready"]
    checks: dict[Literal["database", "broker", "worker"], Check]


class Health(View):
    """The process answers; nothing else was asked."""

    status: Literal["ok"] = "ok"
    version: str


class ProblemKind(View):
    """What a problem's `type` leads to."""

    code: str
    status: int
    title: str
    meaning: str


class Problem(View):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    param: str | None = None
    request_id: str
    errors: list[dict[str, Any]] = Field([])
    details: dict[str, Any] = Field({})
