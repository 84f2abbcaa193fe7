"""What vLLM's worker processes learn when they import this: models that score, and the calls that
the driver makes of them. Imported by name as `worker_extension_cls`, so no entry point is needed.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import ModelRegistry

from worker.vllm_score.overlay import Overlay
from worker.vllm_score.passes import Pass
from worker.vllm_score.pooler import ScoringPooler

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""vLLM's module of each; all of them a body, a plain `lm_head` and a logits processor."""
SCORING = "Scoring"


def register(architecture: str) -> str:
    """Make vLLM know the architecture's scoring twin; its name."""
    module = importlib.import_module(f"vllm.model_executor.models.{ARCHITECTURES[architecture]}")
    name = SCORING + architecture
    if name not in ModelRegistry.get_supported_archs():
        # By class, not by name: a name would be looked into by a fresh process of 15 seconds.
        ModelRegistry.register_model(name, _scoring(getattr(module, architecture), name))
    return name


def _scoring(plain: type[Any], name: str) -> type[Any]:
    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        plain.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.pooler = ScoringPooler(self)

    return type(name, (plain,), {"__init__": __init__, "is_pooling_model": True})


class ScoringWorker:
    """Mixed into vLLM's worker class; `self.get_model()` is the worker's own."""

    _overlay: Overlay | None = None

    def begin_pass(self, task: Pass, adapter: str | None) -> None:
        model = self.get_model()  # type: ignore[attr-defined]
        self.end_pass()
        if adapter is not None:
            self._overlay = Overlay(model, Path(adapter))
        model.pooler.begin(task)

    def columns_at(self, positions: NDArray[np.int64]) -> tuple[int, dict[str, NDArray[Any]]]:
        """How many of these the pass did not reach, and the scores of all of them."""
        columns = self.get_model().pooler.columns  # type: ignore[attr-defined]
        return int((~columns.seen[positions]).sum()), columns.at(positions)

    def end_pass(self) -> None:
        if self._overlay is not None:
            self._overlay.remove()
            self._overlay = None
        self.get_model().pooler.end()  # type: ignore[attr-defined]
