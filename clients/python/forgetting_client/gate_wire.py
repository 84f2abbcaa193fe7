"""Gates as they come: plain dicts, typed. Nats per token unless `unit` says otherwise."""

from typing import Any, Literal, TypedDict

from forgetting_client.wire import JobError, Progress, Provenance, Status

Verdict = Literal["pass", "warn", "fail", "inconclusive", "not_measurable", "incomparable"]
Media = Literal["text/markdown", "application/junit+xml"]


class GateInterval(TypedDict):
    low: float
    high: float
    scope: Literal["this_corpus"]


class GateCheck(TypedDict):
    id: str
    metric: str
    verdict: Verdict
    reason: str
    value: float | None
    limit: float | None
    unit: Literal["nats/token", "nats", "share", "z"]
    informational: bool
    baseline: str | None
    tested: Literal["sequentially", "on every window", "as one number", "not"]
    estimand: float | None
    estimand_limit: float | None
    interval: GateInterval | None
    n_clipped: int


class GateCandidate(TypedDict):
    name: str
    rank: int | None
    trainable_params: int | None


class GateCost(TypedDict):
    base_forward_tokens: int
    tuned_forward_tokens: int
    tokens_saved: int
    seconds: dict[str, float]
    seconds_saved: float | None


class GateResult(TypedDict):
    """What a gate was decided by; also what `client.result` gives of a gate's job."""

    schema_version: int
    verdict: Verdict
    exit_code: int
    alpha: float
    on_inconclusive: Literal["fail", "warn", "pass"]
    checks: list[GateCheck]
    different: list[str]
    n_scored: int
    n_windows: int
    fraction: float
    n_positions_scored: int
    order: str
    candidate: GateCandidate
    worst_tokens: list[dict[str, Any]]
    engine: dict[str, str]
    noise_floor: dict[str, float] | None
    parity: dict[str, Any] | None
    provenance: Provenance
    cost: GateCost
    warnings: list[str]


class Gate(TypedDict):
    """`verdict`, `exit_code` and `reason` are null until the job ends; `result` too, and in
    lists."""

    schema_version: int
    id: str | None
    job: str | None
    status: Status
    phase: str | None
    progress: Progress | None
    verdict: Verdict | None
    exit_code: int | None
    reason: str | None
    error: JobError | None
    base_model: str
    corpus: str
    policy: dict[str, Any]
    result: GateResult | None
    created_at: str | None
    finished_at: str | None
