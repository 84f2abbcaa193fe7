"""The transformers engine: one pass of the base, then one per candidate, position by position.

Base and candidate go through the same batches and the same head chunks, so whatever does not
differ between them cancels exactly.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from service.errors import AdapterUnreadable, ModelUnavailable
from worker.attention import attention_name
from worker.cache import Cache, Entry
from worker.divergence import Head, Route, base_rows, compare
from worker.exact import exact_float32
from worker.fused import fused
from worker.head import bears_adapter, candidate_head, head_of, hidden_states
from worker.model import Base
from worker.once import Alive, once
from worker.pace import Pace, pace_for, within_memory
from worker.reduction import reduction_name
from worker.stored import named, rows_at
from worker.windows import WINDOW_RULE, Windows

SCORING_VERSION = 4
"""Of the numbers: change it whenever the same inputs could give others."""
NOISE_WINDOWS = 8
NOISE_PADDING = 8

OnWindows = Callable[[int, int], None]
"""Called with (windows done, windows in all) between batches; whatever it raises ends the pass."""


@dataclass(frozen=True)
class BasePass:
    """The base's rows, mapped from the cache, and what comparing with them needs."""

    rows: Mapping[str, NDArray[Any]]
    """`BaseRows` by field name, positions in document order."""
    route: Route
    head: Head
    pace: Pace
    noise_kl: float
    noise_max_abs: float
    noise_positions: int
    forward_tokens: int
    """0 when the rows came from the cache."""


Scores = dict[str, NDArray[Any]]
"""`PositionScores` by field name, positions in document order; `kl_reverse` only if asked for."""


def score_base(
    base: Base,
    windows: Windows,
    *,
    corpus_digest: str,
    route: Route,
    cache: Cache,
    on_windows: OnWindows = lambda done, total: None,
    pace: Pace | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> BasePass:
    """The base's pass over the corpus, from the cache if it is there, else into it.

    Where a GPU's memory runs out it starts again at half the pace, and `warn` is told.
    """
    if bears_adapter(base.model):
        raise ValueError("an adapter lies over the base: its pass would not be the base's")
    head = head_of(base.model)

    def attempt(pace: Pace) -> BasePass:
        return _base_pass(base, windows, head, corpus_digest, route, cache, on_windows, pace)

    return within_memory(attempt, pace or pace_for(base.device, len(head.weight)), warn=warn)


def _base_pass(
    base: Base,
    windows: Windows,
    head: Head,
    corpus_digest: str,
    route: Route,
    cache: Cache,
    on_windows: OnWindows,
    pace: Pace,
) -> BasePass:
    key = cache_key(base, windows, corpus_digest=corpus_digest, route=route, pace=pace)

    def compute(alive: Alive) -> Entry:
        def told(done: int, total: int) -> None:
            alive()
            on_windows(done, total)

        with cache.write(key) as writer, exact_float32():
            store: dict[str, NDArray[Any]] = {}
            for batch in _passes(base.model, windows, pace, told):
                rows = base_rows(batch.hidden, head, batch.targets, chunk=pace.chunk, route=route)
                for name, values in named(rows):
                    if name not in store:
                        shape = (windows.n_positions, *values.shape[1:])
                        store[name] = writer.array(name, shape, values.dtype)
                    store[name][batch.positions] = values
            if not np.isfinite(store["h_base"]).all():
                raise ModelUnavailable("the base's logits are not finite", param="base_model")
            noise = noise_of(base.model, windows, head, store, route, pace)
            return writer.commit(noise)

    # Runs of one sweep come to this point together: one of them makes the pass for all.
    entry, cached = once(cache, key, compute, waiting=lambda: on_windows(0, len(windows)))
    return base_pass_of(entry, route, head, pace, forward_tokens=0 if cached else len(windows.ids))


def base_pass_of(
    entry: Entry, route: Route, head: Head, pace: Pace, *, forward_tokens: int
) -> BasePass:
    noise = (entry.facts[name] for name in ("kl", "max_abs", "n_positions"))
    return BasePass(entry.arrays, route, head, pace, *noise, forward_tokens)


def finite(scores: Scores) -> Scores:
    """The same. Raises AdapterUnreadable where a KL is NaN or infinite."""
    lost = int((~np.isfinite(scores["kl"])).sum())
    if lost:
        raise AdapterUnreadable(
            f"the candidate's logits are NaN or infinite at {lost} of {len(scores['kl'])} "
            "positions",
            param="adapters",
        )
    return scores


def score_candidate(
    model: PreTrainedModel,
    windows: Windows,
    base_pass: BasePass,
    *,
    reverse: bool = False,
    on_windows: OnWindows = lambda done, total: None,
) -> Scores:
    """A candidate's pass against the base's rows.

    With route `identity` the candidate's head must be the base's. Raises AdapterUnreadable
    where the candidate computes NaN or infinity.
    """
    head = candidate_head(model, like=base_pass.head)
    identity = base_pass.route == "identity"
    if identity and not head.same_as(base_pass.head):
        raise ValueError("the candidate has a head of its own; use route='logits'")
    scores: Scores = {}
    with exact_float32():
        for batch in _passes(model, windows, base_pass.pace, on_windows):
            rows = rows_at(base_pass.rows, batch.positions, model)
            found = compare(
                batch.hidden,
                head,
                rows,
                chunk=base_pass.pace.chunk,
                base_head=None if identity else base_pass.head,
                reverse=reverse,
            )
            for name, values in named(found):
                if name not in scores:
                    scores[name] = np.empty(windows.n_positions, values.dtype)
                scores[name][batch.positions] = values
    return finite(scores)


def cache_key(
    base: Base, windows: Windows, *, corpus_digest: str, route: Route, pace: Pace
) -> dict[str, Any]:
    """Everything that could change one of the base's numbers."""
    return {
        "base": base.digest,
        "tokenizer": base.tokenizer_digest,
        "corpus": corpus_digest,
        "context": windows.context,
        "begins_with_bos": windows.begins_with_bos,
        "window_rule": WINDOW_RULE,
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "attention": attention_name(base.config),
        "dtype": str(base.dtype),
        "head_dtype": "torch.float32",
        "device": _device_name(base.device),
        "reduction": reduction_name(base.device),
        "route": route,
        "batch_tokens": pace.batch_tokens,
        "chunk": pace.chunk,
        "scoring_version": SCORING_VERSION,
    }


def _device_name(device: torch.device) -> str:
    """Two kinds of GPU round differently, and so do two instruction sets of CPUs."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


@dataclass(frozen=True)
class Batch:
    hidden: Tensor  # hidden state before every scored token (positions, width)
    targets: Tensor  # the scored tokens (positions,)
    positions: NDArray[np.int64]  # their places in document order (positions,)


def _passes(
    model: PreTrainedModel, windows: Windows, pace: Pace, on_windows: OnWindows
) -> Iterator[Batch]:
    """Run the body over all windows, batch by batch."""
    done = 0
    on_windows(done, len(windows))
    for batch in windows.batches(pace.batch_tokens):
        yield forward(model, windows, batch)
        done += len(batch)
        on_windows(done, len(windows))


@torch.inference_mode()
def forward(
    model: PreTrainedModel,
    windows: Windows,
    batch: NDArray[np.int64],
    padding: int = 0,
    *,
    plain: bool = False,
) -> Batch:
    """`plain`: by the model's own modules, which round differently from their faster forms."""
    lengths = windows.lengths[batch]
    width = int(lengths.max()) + padding
    real = np.arange(width)[None] < lengths[:, None]  # (window, token)
    token = windows.starts[batch][:, None] + np.arange(width)[None]
    ids = np.zeros(real.shape, np.int64)
    ids[real] = windows.ids[token[real]]
    scored = np.zeros(real.shape, bool)
    scored[real] = windows.scored[token[real]]
    with nullcontext() if plain else fused(model):
        hidden = hidden_states(model, torch.from_numpy(ids).to(model.device))
    before = torch.from_numpy(scored[:, 1:]).to(model.device)
    starts = windows.position_starts
    return Batch(
        hidden=hidden[:, :-1][before],
        targets=torch.from_numpy(ids[scored]).to(model.device),
        positions=np.concatenate([np.arange(starts[w], starts[w + 1]) for w in batch]),
    )


def noise_of(
    model: PreTrainedModel,
    windows: Windows,
    head: Head,
    store: Mapping[str, NDArray[Any]],
    route: Route,
    pace: Pace,
) -> dict[str, Any]:
    """KL of the base against itself when windows run one by one, padded and by the model's own
    modules: pure rounding.

    Never padded beyond the model's positions, which may be a table of that length.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    chosen = np.unique(np.linspace(0, len(windows) - 1, NOISE_WINDOWS).astype(np.int64))
    kl = []
    for window in chosen:
        room = NOISE_PADDING if limit is None else limit - int(windows.lengths[window])
        padding = max(0, min(NOISE_PADDING, room))
        batch = forward(model, windows, np.array([window]), padding=padding, plain=True)
        rows = rows_at(store, batch.positions, model)
        other = None if route == "identity" else head
        kl.append(compare(batch.hidden, head, rows, chunk=pace.chunk, base_head=other).kl)
    every = torch.cat(kl)
    return {
        "kl": float(every.mean()),
        "max_abs": float(every.abs().max()),
        "n_positions": len(every),
    }
