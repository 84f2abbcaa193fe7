"""The service's answers as they come: plain dicts, typed. Times are RFC 3339 UTC strings.

Nothing is validated here: a field that a newer service adds passes through untouched.
"""

from typing import Any, Literal, TypedDict

from forgetting_client.law_wire import Form, Metric
from forgetting_client.sweeps import FailedChild, PilotView, SweepWork

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Progress(TypedDict):
    done: float
    total: float
    unit: str


JobError = TypedDict(
    "JobError",
    {
        "code": str,
        "detail": str,
        "class": Literal["user", "system"],
        "param": str | None,
        "details": dict[str, Any],
    },
)


class SweepChildren(TypedDict):
    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class LawResidual(TypedDict):
    """One run's last point against its recipe's law, fitted without this run. Nats per token."""

    id: str
    form: Form
    metric: Metric
    run: str
    step: int
    measured: float
    expected: float
    residual: float
    z: float
    ci95: tuple[float, float] | None
    pi95: tuple[float, float]
    n_runs: int
    extrapolating: bool


class JobLaw(LawResidual):
    also: list[LawResidual]
    """The same run by the joint law, and the job's other runs."""


class Job(TypedDict):
    id: str
    type: Literal["finetune", "evaluate", "sweep", "gate"]
    status: Status
    phase: str | None
    progress: Progress | None
    attempt: int
    failures: int
    cancel_requested: bool
    created_at: str
    started_at: str | None
    finished_at: str | None
    sweep: str | None
    children: SweepChildren | None
    verdict: str | None
    failed_children: list[FailedChild] | None
    work: SweepWork | None
    pilot: PilotView | None
    extends: str | None
    error: JobError | None
    law: JobLaw | None
    law_reason: str | None
    metadata: dict[str, str]
    spec: dict[str, Any]


class Event(TypedDict):
    """Kinds: `status`, `phase`, `progress`, `metric`, `checkpoint`, `log`, and last `done`."""

    id: int
    at: str
    kind: str
    data: dict[str, Any]


class MetricPoint(TypedDict):
    step: int
    value: float | None
    at: str


class Metrics(TypedDict):
    series: dict[str, list[MetricPoint]]


class CheckpointView(TypedDict):
    """One measured step of a job, finished or not; scores are null until they are known."""

    step: int | None
    adapter: str
    trainable_params: int | None
    rank: int | None
    train_loss: float | None
    heldout_loss: float | None
    kl: float | None
    ce_soft: float | None
    same_top: float | None
    delta_norm: float | None


class Artifact(TypedDict):
    name: str
    bytes: int
    sha256: str
    """`sha256:<hex>`."""


class Estimate(TypedDict):
    value: float
    ci95: tuple[float, float] | None
    ci_reason: str | None
    scope: str


class FtLoss(TypedDict):
    """Nats per supervised token."""

    train: float | None
    heldout: float | None


class Forgetting(TypedDict):
    """One comparison of a base and a candidate. Nats per token, over the full vocabulary."""

    kl: Estimate
    ce_soft: Estimate
    ce_hard: Estimate
    same_top: Estimate
    same_top5: Estimate
    nll_base: Estimate
    nll_tuned: Estimate
    kl_reverse: Estimate | None
    h_base: float
    kl_percentiles: dict[str, float]
    delta_p: dict[str, float]
    ppl: dict[str, float]
    by_confidence: list[dict[str, Any]]


class Checkpoint(TypedDict):
    step: int | None
    adapter: str
    rank: int | None
    trainable_params: int | None
    ft_loss: FtLoss
    forgetting: Forgetting
    delta_norm: float | None
    lora: dict[str, Any] | None


class Pair(TypedDict):
    """Checkpoint a minus checkpoint b, by their index, on the same tokens."""

    a: int
    b: int
    kl: Estimate
    same_top: Estimate
    heldout: Estimate | None
    windows: dict[str, int]


class Provenance(TypedDict):
    """Results that differ in base, tokenizer, corpus, context, scoring_version or window_rule must
    not be compared. Digests are `sha256:…` of content."""

    base: str
    tokenizer: str
    adapter: str | None
    corpus: str
    dataset: str | None
    context: int
    begins_with_bos: bool
    dtype: str
    device: str
    engine: str
    route: Literal["identity", "logits"]
    scoring_version: int
    window_rule: str
    versions: dict[str, str]
    seed: int
    base_revision: str | None
    dataset_format: str | None
    corpus_kind: str


class Result(Forgetting):
    """The last checkpoint's measurement at top level, every checkpoint's below."""

    schema_version: int
    documents: list[dict[str, Any]]
    n_documents: int
    n_windows: int
    n_positions: int
    ft_loss: FtLoss
    checkpoints: list[Checkpoint]
    pairs: list[Pair]
    worst_windows: list[dict[str, Any]]
    worst_tokens: list[dict[str, Any]]
    law: JobLaw | None
    law_reason: str | None
    engine: dict[str, str]
    noise_floor: dict[str, float]
    parity: dict[str, Any] | None
    provenance: Provenance
    cost: dict[str, Any]
    warnings: list[str]


class Health(TypedDict):
    status: str
    version: str


class Check(TypedDict):
    ok: bool
    detail: str


class Readiness(TypedDict):
    """`ready` only if a job that is submitted now could run."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class ModelLine(TypedDict):
    name: str
    ok: bool
    found: str
    mend: str | None


class ModelCheck(TypedDict):
    """Whether jobs can use a base, and what it takes, in bytes. Null: not known after a refusal."""

    model: str
    revision: str | None
    ok: bool
    parameters: int | None
    trained_parameters: int | None
    scoring_bytes: int | None
    training_bytes: int | None
    disk_bytes: int | None
    checks: list[ModelLine]
