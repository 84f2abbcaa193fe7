"""What a job will cost, from its spec, its base's headers and the size of its files alone.

An estimate on the high side, in tokens x parameters: a training step reads a token three times
(forward, and twice as much backward), a measurement once.
"""

from dataclasses import dataclass
from math import prod

from service.pilot import children_of
from service.schedule import measured_steps
from service.schemas.spec import CandidatesSpec, Spec, SweepSpec
from service.settings import Settings
from service.sources import find, model_files, resolve_model

TRAINED = 3
BYTES_PER_TOKEN = 3
"""English has four or more; the estimate is to be high."""
HUB_TOKENS = 400_000
"""WikiText-103's test split has 290,000 under most tokenizers."""


@dataclass(frozen=True)
class Price:
    tokens: int
    """A trained token counts three times."""
    parameters: int

    @property
    def cost(self) -> float:
        return float(self.tokens) * self.parameters


def price_of(spec: Spec, settings: Settings) -> Price:
    """Raises what `resolve_model` and `model_files` do."""
    files = model_files(resolve_model(spec.base_model, spec.revision, settings))
    parameters = sum(prod(header.shape) for header in files.tensors.values())
    return Price(tokens_of(spec, settings), parameters)


def tokens_of(spec: Spec, settings: Settings) -> int:
    corpus = find(spec.evaluation.corpus, settings.data_roots, param="evaluation.corpus")
    is_file = corpus is not None and corpus.is_file()
    measured = corpus.stat().st_size // BYTES_PER_TOKEN if corpus and is_file else HUB_TOKENS
    if isinstance(spec, CandidatesSpec):
        return measured * (len(spec.every_adapter) + 1)
    runs = children_of(spec) if isinstance(spec, SweepSpec) else [spec]
    trained = sum(
        run.training.max_steps * run.training.batch_size * run.training.max_length for run in runs
    )
    passes = sum(len(measured_steps(run.training, run.evaluation)) for run in runs)
    return TRAINED * trained + measured * (passes + 1)
