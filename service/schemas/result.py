"""What a finished job answers. Forgetting is in nats per token, over the full vocabulary.

Field meanings: docs/metric.md. `ci95` is null where it cannot be had, and `ci_reason` says why.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Estimate(View):
    """A token-weighted mean with a 95 % interval from a paired bootstrap over documents."""

    value: float
    ci95: tuple[float, float] | None = None
    ci_reason: str | None = None
    scope: Literal["documents", "rows"] = "documents"
    """What was resampled; `rows` are held-out rows of the dataset."""


class DeltaP(View):
    """p_tuned(actual token) - p_base(actual token)."""

    mean: float
    rms: float


class Perplexity(View):
    base: float
    tuned: float
    ln_ratio: float


class ConfidenceBin(View):
    """Positions whose base top-1 probability lies in [low, high)."""

    low: float
    high: float
    n_positions: int
    kl: float | None
    same_top: float | None


class DocumentScore(View):
    index: int
    title: str
    n_positions: int
    kl: float
    ce_soft: float
    ce_hard: float
    same_top: float
    nll_base: float
    nll_tuned: float


class TokenScore(View):
    """One of the positions with the largest KL."""

    document: int
    position: int
    """Index of the token within its document, BOS not counted."""
    token: str
    context: str
    kl: float
    base_top: str
    tuned_top: str
    p_base: float
    p_tuned: float


class WindowScore(View):
    document: int
    window: int
    n_positions: int
    kl: float
    text: str


class Forgetting(View):
    """Everything that one comparison of a base and a candidate measures."""

    kl: Estimate
    ce_soft: Estimate
    ce_hard: Estimate
    same_top: Estimate
    same_top5: Estimate
    """Share of positions whose five likeliest tokens are the same set."""
    nll_base: Estimate
    nll_tuned: Estimate
    kl_reverse: Estimate | None
    """KL(tuned || base); null unless `evaluation.reverse`."""
    h_base: float
    kl_percentiles: dict[str, float]
    """max, p99.9, p99, p95, p90, median, p10, p5, p1, p0.1, min over positions."""
    delta_p: DeltaP
    ppl: Perplexity
    by_confidence: list[ConfidenceBin]


class FtLoss(View):
    """Nats per supervised token. `heldout` is the law's L_ft."""

    train: float | None
    heldout: float | None


class LoraFacts(View):
    """What an adapter's own files say of how it was made."""

    peft: str
    """`lora`, or `lora` and what else it changes: `lora+dora`, `lora+modules_to_save`, …"""
    target_modules: list[str]
    """Last parts of the adapted modules' names where every such module is adapted, else their
    whole names."""
    all_linear: bool
    """Every linear layer but the output head is adapted, and nothing else."""
    use_rslora: bool
    lora_alpha: float
    lora_dropout: float


class Checkpoint(View):
    """One measured step of a run, or one adapter of an evaluate job."""

    step: int | None
    adapter: str
    """Artifact name of the adapter folder, or the path that was asked for."""
    rank: int | None
    trainable_params: int | None
    ft_loss: FtLoss
    forgetting: Forgetting
    delta_norm: float | None = None
    """Frobenius norm of the whole update of the weights, sqrt(sum over adapted matrices of
    |scale B A|^2); null for what is not plain LoRA."""
    lora: LoraFacts | None = None
    """Null for a full model."""


class WindowTally(View):
    """In how many windows of the corpus which of two forgot less, by the window's mean KL."""

    a_less: int
    b_less: int
    equal: int


class Pair(View):
    """Two checkpoints on the same tokens: a minus b. What both have in common cancels, so these
    intervals are narrower than those of the two values suggest."""

    a: int
    """Index in `checkpoints`, from 0."""
    b: int
    kl: Estimate
    same_top: Estimate
    heldout: Estimate | None
    """Of `ft_loss.heldout`, over rows; null where there is no dataset."""
    windows: WindowTally


class LawResidual(View):
    """One run's last point against its recipe's law, fitted without this run. Nats per token."""

    id: str
    """Of that law."""
    form: Literal["linear", "joint"]
    metric: Literal["kl"] = "kl"
    run: str
    step: int
    measured: float
    expected: float
    """By the line at the point's held-out loss, or by the joint law at its trainable_params and
    step."""
    residual: float
    """`measured - expected`: above 0 it forgot more than expected."""
    z: float
    """The residual with the law's 95 % interval of a new run as measure: beyond 1.96, and below
    -1.96, lies outside `pi95`. The spread between runs is in it."""
    ci95: tuple[float, float] | None
    pi95: tuple[float, float]
    n_runs: int
    """Other runs, which the law was fitted to."""
    extrapolating: bool


class JobLaw(LawResidual):
    """The residual of a job's last adapter by the line; `also` holds what else there is."""

    also: list[LawResidual]
    """The same run by the joint law, and the job's other runs."""


class EngineUse(View):
    """What the engine ran with in the end."""

    batch_tokens: int
    """In a forward step, at most."""
    head_rows: int
    """Of logits, made at once."""
    kv_cache_bytes: int | None = None
    """vLLM's, for the windows in flight; transformers keeps none."""
    gpu_memory_utilization: float | None = None
    """Of the GPU's memory, what vLLM was allowed; null without a GPU."""
    warm: bool = False
    """Whether the engine was running already, from the job before."""
    restarts: int = 0
    """Of vLLM, out of memory, each time at half of what it ran with."""


class Engine(View):
    name: Literal["transformers", "vllm"]
    reason: str
    used: EngineUse | None = None


class NoiseFloor(View):
    """KL of the base against itself under other batching: what the number cannot resolve."""

    kl: float
    max_abs: float
    n_positions: int


class Cost(View):
    base_forward_tokens: int
    """0 when the base pass came from the cache."""
    tuned_forward_tokens: int
    training_tokens: int
    dataset_cached: bool | None = None
    """Whether the tokenised dataset came from the cache; null where none was trained on."""
    seconds: dict[str, float]
    """Wall-clock per phase."""


class Provenance(View):
    base: str
    tokenizer: str
    adapter: str | None
    corpus: str
    dataset: str | None
    """sha256 digests of content."""
    context: int
    begins_with_bos: bool
    dtype: str
    device: str
    engine: str
    route: Literal["identity", "logits"]
    """How KL was summed: docs/metric.md."""
    scoring_version: int
    window_rule: str
    """Results of another version or rule must not be compared."""
    versions: dict[str, str]
    seed: int
    base_revision: str | None
    dataset_format: str | None
    corpus_kind: str


class Result(Forgetting):
    """The last checkpoint's measurement at top level, every checkpoint's below."""

    schema_version: Literal[1] = 1
    documents: list[DocumentScore]
    n_documents: int
    n_windows: int
    n_positions: int
    ft_loss: FtLoss
    checkpoints: list[Checkpoint]
    pairs: list[Pair] = []
    """Every two of `checkpoints`, in their order."""
    worst_windows: list[WindowScore]
    worst_tokens: list[TokenScore]
    law: JobLaw | None
    """Computed when asked for, from the runs that are stored by then."""
    law_reason: str | None = None
    """Why a job with law points has no `law` yet."""
    engine: Engine
    noise_floor: NoiseFloor
    parity: dict[str, Any] | None
    """Of vLLM results: a few windows scored by transformers too."""
    provenance: Provenance
    cost: Cost
    warnings: list[str]
