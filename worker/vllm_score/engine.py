"""vLLM, driven window by window: started once, then any number of passes of base and adapters."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.divergence import Route
from worker.vllm_score.environment import prepare
from worker.vllm_score.passes import Pass, Tokens

OnWindows = Callable[[int, int], None]
BLOCK = 128
"""Tokens in a block of the key-value cache: the least that vLLM's CPU attention takes well."""


class Engine:
    """One base in one vLLM of this process. Base and candidates run in the same order, so that
    the scheduler makes the same batches and an untouched model scores exactly 0."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        context: int,
        batch_tokens: int,
        chunked_prefill: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        began = time.monotonic()
        prepare()
        from vllm import EngineArgs, PoolingParams
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.llm_engine import LLMEngine

        from worker.vllm_score.extension import ScoringWorker, register
        from worker.vllm_score.pooler import TASK

        config = json.loads((folder / "config.json").read_text())
        room = batch_tokens if chunked_prefill else max(batch_tokens, context)
        seqs = max(1, min(256, room // 16))
        arguments = {
            "model": str(folder),
            "runner": "pooling",
            "hf_overrides": {"architectures": [register(config["architectures"][0])]},
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": context,
            "max_num_batched_tokens": room,
            "max_num_seqs": seqs,
            "kv_cache_memory_bytes": cache_bytes(config, dtype, room + context, seqs),
            "skip_tokenizer_init": True,
            # The head is reduced whole: a shard of it would be another distribution.
            "tensor_parallel_size": 1,
            "worker_extension_cls": f"{ScoringWorker.__module__}.{ScoringWorker.__qualname__}",
            "enable_chunked_prefill": chunked_prefill,
            # A cached prefix has no hidden states, and so no scores.
            "enable_prefix_caching": False,
            "enable_lora": False,
            # The hooks of an adapter are Python: a captured or compiled graph would not run them.
            "enforce_eager": True,
            "async_scheduling": False,
            "disable_log_stats": True,
            "seed": 0,
        }
        self._prompt = tokens_input
        self._params = lambda window: PoolingParams(
            task=TASK, skip_reading_prefix_cache=True, extra_kwargs={"window": window}
        )
        arguments |= options or {}
        if (workers := arguments["tensor_parallel_size"]) != 1:
            raise ValueError(f"the head must be whole, not spread over {workers} workers")
        self.kv_cache_bytes = int(arguments["kv_cache_memory_bytes"])
        self.gpu_memory_utilization: float | None = arguments.get("gpu_memory_utilization")
        with ExitStack() as undo:
            undo.callback(_give_back_memory)
            with memory_errors():
                self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
            undo.pop_all()
        self.start_seconds = time.monotonic() - began
        self._passes = 0

    def fill(
        self,
        tokens: Tokens,
        rows: Mapping[str, NDArray[Any]],
        *,
        route: Route,
        chunk: int,
        on_windows: OnWindows = lambda done, total: None,
    ) -> None:
        """The base's pass: every position's `BaseRows` into the arrays `rows`."""
        task = Pass(tokens, rows, fills=True, route=route, chunk=chunk)
        with self._running(task, None):
            self._run(tokens, order_of(tokens), on_windows)
            self._columns(tokens, np.arange(len(tokens.starts) - 1))

    def score(
        self,
        tokens: Tokens,
        rows: Mapping[str, NDArray[Any]],
        adapter: Path | None,
        *,
        route: Route,
        chunk: int,
        reverse: bool = False,
        windows: NDArray[np.int64] | None = None,
        on_windows: OnWindows = lambda done, total: None,
    ) -> dict[str, NDArray[Any]]:
        """An adapter's pass against the base's rows: `PositionScores` by field name.

        `windows`: only these, in this order, positions likewise. Without an adapter it is the
        base itself that is compared.
        """
        task = Pass(tokens, rows, fills=False, route=route, chunk=chunk, reverse=reverse)
        with self._running(task, adapter):
            self._run(tokens, order_of(tokens) if windows is None else windows, on_windows)
            every = np.arange(len(tokens.starts) - 1)
            return self._columns(tokens, every if windows is None else windows)

    def close(self) -> None:
        """Give its memory back, so that another engine may start in this process."""
        self._engine.engine_core.shutdown()
        del self._engine
        _give_back_memory()

    @contextmanager
    def _running(self, task: Pass, adapter: Path | None) -> Iterator[None]:
        self._engine.collective_rpc("begin_pass", args=(task, adapter and str(adapter)))
        try:
            with memory_errors():
                yield
        finally:
            self._engine.collective_rpc("end_pass")

    def _run(self, tokens: Tokens, order: Sequence[int], on_windows: OnWindows) -> None:
        self._passes += 1
        names = [f"{self._passes}-{window}" for window in order]
        on_windows(0, len(names))
        added = []
        for name, window in zip(names, order, strict=True):
            span = slice(int(tokens.starts[window]), int(tokens.starts[window + 1]))
            prompt = self._prompt(tokens.ids[span].tolist())
            added.append(self._engine.add_request(name, prompt, self._params(int(window))))
        done = 0
        try:
            while self._engine.has_unfinished_requests():
                finished = sum(output.finished for output in self._engine.step())
                done += finished
                if finished:
                    on_windows(done, len(names))
        finally:
            if done < len(names):
                self._engine.abort_request(added, internal=True)

    def _columns(self, tokens: Tokens, windows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        positions = tokens.positions(windows)
        missing, columns = self._engine.collective_rpc("columns_at", args=(positions,))[0]
        if missing:
            raise RuntimeError(f"vLLM left {missing} of {len(positions)} positions without a score")
        return columns


@contextmanager
def memory_errors() -> Iterator[None]:
    """vLLM words some errors of the allocator anew; here they are torch's again."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error) and not isinstance(error, torch.OutOfMemoryError):
            raise torch.OutOfMemoryError(str(error)) from None
        raise


def _give_back_memory() -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    gc.collect()
    cleanup_dist_env_and_memory()


def order_of(tokens: Tokens) -> NDArray[np.int64]:
    """Windows longest first, as the other engine takes them."""
    return np.argsort(-np.diff(tokens.starts), kind="stable")


def cache_bytes(config: Mapping[str, Any], dtype: torch.dtype, tokens: int, seqs: int) -> int:
    """Of keys and values for what is in flight at once; a scored window is never read again."""
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    per_token = 2 * config["num_hidden_layers"] * width * dtype.itemsize
    per_token *= config.get("num_key_value_heads") or heads
    blocks = tokens // BLOCK + seqs + 2  # each sequence's last block is part empty
    return blocks * BLOCK * per_token
