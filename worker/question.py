"""What a gate is asked: one candidate, one base, one corpus, one policy. Its digest draws the order
of the windows, so asking again cannot draw a luckier one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from service.laws.gate import differences
from service.laws.statistic import NUMBERS, Check
from service.schemas.result import Engine, Provenance
from service.schemas.spec import GateSpec
from service.settings import Settings
from worker.candidates import Candidate, of_spec
from worker.corpus import Corpus
from worker.data import TokenisedDataset
from worker.digest import digest_bytes
from worker.divergence import Route
from worker.measure import choose_engine
from worker.model import Base
from worker.provenance import provenance_of
from worker.reader import CANDIDATE
from worker.windows import WINDOW_RULE, Windows

PLACES = frozenset({"baselines", "corpus", "split", "context"})
"""Of a policy: where to find what the order is drawn from itself."""


@dataclass(frozen=True)
class Question:
    spec: GateSpec
    checks: tuple[Check, ...]
    base: Base
    corpus: Corpus
    windows: Windows
    named: Mapping[str, Candidate]
    """The candidate as CANDIDATE, and by name the baselines that it is compared with."""

    @property
    def candidate(self) -> Candidate:
        return self.named[CANDIDATE]

    @property
    def wants_numbers(self) -> bool:
        """Whether a check asks for the law residual."""
        return any(check.metric in NUMBERS for check in self.checks)

    @property
    def reverse(self) -> bool:
        asked = any(check.metric == "kl_reverse" for check in self.checks)
        return asked or self.spec.evaluation.reverse

    @cached_property
    def text(self) -> str:
        """Canonical JSON of all that the verdict is about. Baselines and corpus are their content,
        not the name of a place."""
        content = {
            "adapter": self.candidate.digest,
            "baselines": {n: c.digest for n, c in self.named.items() if n != CANDIDATE},
            "base": self.base.digest,
            "tokenizer": self.base.tokenizer_digest,
            "corpus": self.corpus.digest,
            "context": self.windows.context,
            "begins_with_bos": self.windows.begins_with_bos,
            "window_rule": WINDOW_RULE,
            "policy": self.spec.policy.model_dump(mode="json", exclude=set(PLACES)),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        return digest_bytes(self.text.encode())

    @cached_property
    def engine(self) -> Engine:
        """Raises EngineUnavailable."""
        chosen = choose_engine(self.spec.evaluation)
        if self.spec.evaluation.engine != "auto":
            return chosen
        reason = "auto: a gate scores few windows, and transformers starts at once"
        return chosen.model_copy(update={"reason": reason})

    def provenance(self, route: Route, dataset: TokenisedDataset | None = None) -> Provenance:
        seed = self.spec.seed
        return provenance_of(
            self.base,
            self.windows,
            self.corpus,
            self.candidate,
            dataset,
            self.engine,
            route,
            seed,
        )

    def different(self) -> tuple[str, ...]:
        """Names in `measured_on` that are not so here."""
        here = self.provenance("logits").model_dump()
        said = self.spec.policy.measured_on.model_dump(exclude_none=True)
        return differences(here, here | said)


def ask(
    spec: GateSpec,
    base: Base,
    corpus: Corpus,
    windows: Windows,
    adapters: Mapping[str, Path],
    settings: Settings,
) -> Question:
    """Raises AdapterUnreadable, PathNotAllowed, naming the field."""
    checks = tuple(check.pure() for check in spec.policy.checks)
    candidate, *baselines = of_spec(spec, adapters, settings)
    compared = {check.baseline for check in checks}
    named = {
        name: one
        for name, one in zip(spec.policy.baselines, baselines, strict=True)
        if name in compared
    }
    return Question(spec, checks, base, corpus, windows, {CANDIDATE: candidate, **named})
