"""Did the candidate forget more than the law of its recipe expects? The law never saw its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.foreign import misfits
from service.laws.fit import fit
from service.laws.gate import counts
from service.laws.quantities import LawError, Point
from service.laws.residual import compare, others
from service.laws.statistic import NUMBERS
from service.schemas.result import LoraFacts, Provenance
from service.schemas.spec import GateSpec
from service.settings import Settings
from worker.adapter import read_config
from worker.blame import named_as_in
from worker.cache import Cache
from worker.candidates import Candidate
from worker.data import TokenisedDataset, load_rows
from worker.grafts import Grafts
from worker.heldout import heldout_loss
from worker.phases import Phases
from worker.question import Question
from worker.reader import CANDIDATE
from worker.tokenised import tokenised
from worker.update import lora_facts

UNNAMED = "this candidate"
"""The run of an adapter that came without one: no stored run is left out for it."""
Numbers = dict[str, float | str]
"""`law_residual`, nats per token, and `law_residual_z`; in place of one that cannot be had, why."""


def obstacle(spec: GateSpec, law: Mapping[str, Any] | None) -> str | None:
    """Why there can be no residual, as far as is known before anything is loaded."""
    if law is None:
        return "the laws of recipes are kept by a service, and none was asked"
    if "reason" in law:
        return str(law["reason"])
    if law["ft_loss"] is None and spec.dataset is None:
        return "its held-out loss is not known: give the `dataset` that it was trained on"
    return None


@dataclass(frozen=True)
class Expected:
    """The law, and the held-out rows where the held-out loss is still to be measured."""

    law: Mapping[str, Any] | None
    why_not: str | None
    dataset: TokenisedDataset | None = None

    @classmethod
    def of(
        cls,
        question: Question,
        law: Mapping[str, Any] | None,
        *,
        cache: Cache,
        phases: Phases,
        settings: Settings,
    ) -> "Expected":
        """Raises DatasetUnreadable."""
        spec = question.spec
        why_not = obstacle(spec, law) if question.wants_numbers else "no check asks"
        if law is None or why_not is not None or law["ft_loss"] is not None or not spec.dataset:
            return cls(law, why_not)
        with named_as_in(spec):
            dataset, _ = tokenised(
                load_rows(spec.dataset, settings),
                question.base.tokenizer,
                spec.supervision,
                tokenizer_digest=question.base.tokenizer_digest,
                cache=cache,
                waiting=phases.waiting("another run tokenises this dataset; waiting for it"),
            )
        return cls(law, why_not, dataset)

    def needs_everything(self, question: Question) -> bool:
        """Whether a residual that counts can be had: it is one number of the whole corpus."""
        counted = any(check.metric in NUMBERS and counts(check) for check in question.checks)
        return counted and self.why_not is None

    def numbers(
        self,
        question: Question,
        grafts: Grafts,
        provenance: Provenance,
        kl: float | None,
        phases: Phases,
    ) -> Numbers:
        """At the mean KL of what was scored. Measures the held-out loss if it is not known."""
        if self.law is None or self.why_not is not None:
            return nothing(self.why_not or "no law")
        if kl is None:
            return nothing("no window was scored")
        lora, ft_loss = None, self.law["ft_loss"]
        with grafts.on(CANDIDATE) as (model, _):
            if question.candidate.rank is not None:
                lora = lora_facts(model, read_config(question.candidate.folder))
            if self.dataset is not None:
                ft_loss = heldout_loss(model, self.dataset.heldout, on_rows=phases.rows(1, 0))
        return unexpected(self.law, question.candidate, provenance, lora, kl=kl, ft_loss=ft_loss)


def unexpected(
    law: Mapping[str, Any],
    candidate: Candidate,
    provenance: Provenance,
    lora: LoraFacts | None,
    *,
    kl: float,
    ft_loss: float,
) -> Numbers:
    """Against the line of the recipe's other runs. `law`: of `service.expectation`."""
    measured = {
        "base_digest": provenance.base,
        "corpus_digest": provenance.corpus,
        "context": provenance.context,
        "dtype": provenance.dtype,
        **({"dataset_digest": provenance.dataset} if provenance.dataset else {}),
        **(lora.model_dump() if lora else {"peft": "full model"}),
    }
    why = misfits(law["recipe"], measured, candidate.rank)
    if why:
        return nothing(f"not of the law's recipe: {'; '.join(why)}")
    run = law["run"] or UNNAMED
    own = Point(
        run=run,
        trainable_params=candidate.trainable_params or 1,
        step=candidate.step or 1,
        ft_loss=ft_loss,
        kl=kl,
        rank=candidate.rank,
    )
    try:
        points = others([Point(**point) for point in law["points"]], run)
        found = compare(fit(points, "linear", metric="kl"), own)
    except LawError as error:
        return nothing(error.message)
    return {"law_residual": found.residual, "law_residual_z": found.z}


def nothing(reason: str) -> Numbers:
    """No residual, and why."""
    return {"law_residual": reason, "law_residual_z": reason}
