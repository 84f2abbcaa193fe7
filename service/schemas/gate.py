"""What a gate answers. Nats per token unless `unit` says otherwise."""

from typing import Any, Literal

from service.jobs import JobState, Phase
from service.laws.verdict import OnInconclusive, Verdict
from service.schemas.policy import Policy
from service.schemas.result import Engine, NoiseFloor, Provenance, TokenScore, View
from service.schemas.views import JobError, Progress


class GateInterval(View):
    """Of this corpus's mean, not of a population of documents: each end alone is wrong with
    probability at most alpha."""

    low: float
    high: float
    scope: Literal["this_corpus"] = "this_corpus"


class GateCheck(View):
    id: str
    metric: str
    verdict: Verdict
    reason: str
    """One clause, for people."""
    value: float | None
    """In the metric's own unit, over what was scored, as it is (not clipped)."""
    limit: float | None
    """The one that it was tested against, in that unit."""
    unit: Literal["nats/token", "nats", "share", "z"]
    informational: bool
    baseline: str | None = None
    tested: Literal["sequentially", "on every window", "as one number", "not"]
    """`not`: informational, refused before it began, or a limit that only warns."""
    estimand: float | None = None
    """Mean of what the test looks at: clipped window values; of a percentile the share of positions
    above the limit, of agreement the share that disagrees."""
    estimand_limit: float | None = None
    interval: GateInterval | None = None
    """Of the estimand."""
    n_clipped: int = 0


class GateCandidate(View):
    name: str
    rank: int | None
    """Null for a full model."""
    trainable_params: int | None


class GateCost(View):
    base_forward_tokens: int
    """0 where the base's pass came from the cache."""
    tuned_forward_tokens: int
    """Of the candidate and of baselines."""
    tokens_saved: int
    """Forward tokens that scoring everything would have taken besides."""
    seconds: dict[str, float]
    """Wall-clock per phase; `loading` is the engine's start-up."""
    seconds_saved: float | None
    """Estimated: tokens_saved at the pace of this run. Null where nothing was scored."""


class GateResult(View):
    """Stored when the gate's job ends. Computed by `service.laws.gate` alone."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    exit_code: int
    alpha: float
    on_inconclusive: OnInconclusive
    checks: list[GateCheck]
    different: list[str]
    """Names in `policy.measured_on` that this gate's provenance does not share."""
    n_scored: int
    """Windows."""
    n_windows: int
    fraction: float
    n_positions_scored: int
    order: str
    """sha256 of what the order of windows was drawn from: the same question, the same order."""
    candidate: GateCandidate
    worst_tokens: list[TokenScore]
    """Among what was scored."""
    engine: Engine
    noise_floor: NoiseFloor | None
    parity: dict[str, Any] | None
    provenance: Provenance
    cost: GateCost
    warnings: list[str]


class Gate(View):
    """A gate job's verdict, and how far it is until there is one."""

    schema_version: Literal[1] = 1
    id: str | None
    """`gate_…`; null where no service was asked (`--local`)."""
    job: str | None
    """Of the job that scores, `job_…`."""
    status: JobState
    phase: Phase | None
    progress: Progress | None
    verdict: Verdict | None
    """Null until the job ends; `not_measurable` where it failed or was cancelled."""
    exit_code: int | None
    """0 pass or warn, 1 fail, 3 inconclusive, 4 not measurable, 5 incomparable."""
    reason: str | None
    """One sentence for people."""
    error: JobError | None
    base_model: str
    corpus: str
    policy: Policy
    result: GateResult | None
    """Null until there is one, and in lists."""
    created_at: str | None
    finished_at: str | None
