"""From candidates to measurements, each against one and the same pass of the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import AdapterUnreadable, EngineUnavailable, ForgettingError
from service.schemas.result import Checkpoint, Engine, FtLoss
from service.schemas.spec import Evaluation
from worker.adapter import read_config
from worker.candidates import Candidate
from worker.divergence import Head, Route
from worker.engine import Scorer
from worker.estimate import Positions, forgetting, positions_of
from worker.head import candidate_head, head_of
from worker.heldout import OnRows, RowLosses, heldout_rows
from worker.model import Base, is_adapter, tuned
from worker.parity import Parity
from worker.score import BasePass, OnWindows, Scores
from worker.update import delta_norm, lora_facts
from worker.windows import Windows

Report = Callable[[dict[str, Any]], None]
MIN_IDENTITY_POSITIONS = 10_000
"""The identity's error is about 1e-6 nats per position, without bias: it vanishes in a mean over
many. With few, both logits are made, whose errors cancel within each position."""


@dataclass(frozen=True)
class Measurement:
    checkpoint: Checkpoint
    positions: Positions
    scores: Scores
    losses: RowLosses | None
    """Of the held-out rows, where there are any."""
    parity: dict[str, Any] | None = None
    """Of the vLLM engine's scores, with transformers'."""


def choose_engine(evaluation: Evaluation) -> Engine:
    """A gate's: the reference, since vLLM takes longer to start than a gate to decide.

    Raises EngineUnavailable where vLLM is asked for.
    """
    if evaluation.engine == "vllm":
        raise EngineUnavailable("gates are scored by transformers", param="evaluation.engine")
    asked = evaluation.engine == "transformers"
    return Engine(name="transformers", reason="asked for" if asked else "auto: few windows")


def choose_route(
    base: Base, candidates: Sequence[Candidate], *, n_positions: int, reverse: bool
) -> Route:
    """`identity` where it holds: one linear head that no candidate changes, one direction asked.

    Adapters are laid over the base for it, so one that does not fit is refused before the pass.
    """
    head = head_of(base.model)
    shared = [_shares_head(base, candidate, head) for candidate in candidates]
    many = n_positions >= MIN_IDENTITY_POSITIONS
    return "identity" if all(shared) and many and not reverse else "logits"


def measure(
    base: Base,
    windows: Windows,
    base_pass: BasePass,
    candidate: Candidate,
    *,
    scorer: Scorer,
    parity: Parity | None,
    heldout: Sequence[Any] | None,
    reverse: bool,
    seed: int,
    on_windows: OnWindows,
    on_rows: OnRows | None = None,
) -> Measurement:
    """One candidate's forgetting, and its held-out loss where there are held-out rows."""
    try:
        with tuned(base, candidate.folder) as model:
            scores = scorer.scores(
                candidate.folder, model, windows, base_pass, reverse=reverse, on_windows=on_windows
            )
            compared = parity.check(model, scores, base_pass) if parity else None
            losses = None if heldout is None else heldout_rows(model, heldout, on_rows=on_rows)
            config = read_config(candidate.folder) if is_adapter(candidate.folder) else None
            size = delta_norm(model, config) if config else None
            lora = lora_facts(model, config) if config else None
    except AdapterUnreadable as error:
        raise _blame(error, candidate) from error
    positions = positions_of(base_pass.rows, scores, windows.position_document)
    checkpoint = Checkpoint(
        step=candidate.step,
        adapter=candidate.name,
        rank=candidate.rank,
        trainable_params=candidate.trainable_params,
        ft_loss=FtLoss(train=candidate.train_loss, heldout=losses.mean if losses else None),
        forgetting=forgetting(positions, seed=seed),
        delta_norm=size,
        lora=lora,
    )
    return Measurement(checkpoint, positions, scores, losses, compared)


def report_measured(report: Report, checkpoint: Checkpoint) -> None:
    """The checkpoint with its scores, and where there are steps a point of each series."""
    found = checkpoint.forgetting
    values = {
        "kl": found.kl.value,
        "ce_soft": found.ce_soft.value,
        "same_top": found.same_top.value,
        "heldout_loss": checkpoint.ft_loss.heldout,
    }
    if checkpoint.step is not None:
        for name, value in values.items():
            if value is not None:
                report({"kind": "metric", "name": name, "step": checkpoint.step, "value": value})
    shared = {"step", "adapter", "rank", "trainable_params", "delta_norm"}
    report(
        {
            "kind": "checkpoint",
            **checkpoint.model_dump(include=shared),
            "train_loss": checkpoint.ft_loss.train,
            **values,
        }
    )


def _shares_head(base: Base, candidate: Candidate, head: Head) -> bool:
    if not is_adapter(candidate.folder):
        return False  # a full model is loaded once, when its turn comes
    try:
        with tuned(base, candidate.folder) as model:
            return candidate_head(model, like=head).same_as(head)
    except AdapterUnreadable as error:
        raise _blame(error, candidate) from error


def _blame(error: AdapterUnreadable, candidate: Candidate) -> ForgettingError:
    return AdapterUnreadable(error.message, param=candidate.param, **error.details)
