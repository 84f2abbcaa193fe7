"""The pooler of a model that scores: called by vLLM after every forward step, inside the worker.

A step brings some tokens of some requests, in whatever pieces the scheduler made. Positions do not
depend on each other, so each piece is reduced at once and nothing waits for its window's end: a
prompt prefilled in chunks, or preempted and computed again, writes the same numbers.
"""

from collections.abc import Set

import numpy as np
import torch
from torch import Tensor, nn
from vllm.model_executor.layers.pooler.abstract import Pooler
from vllm.v1.pool.metadata import PoolingMetadata

from worker.divergence import Head, base_rows, compare
from worker.vllm_score.passes import Columns, Pass, Rows

TASK = "token_classify"


class ScoringPooler(Pooler):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = [model]  # in a list: a model is not a child of its own pooler
        self._head: Head | None = None
        self._pass: Pass | None = None
        self._rows: Rows | None = None
        self.columns: Columns | None = None

    def get_supported_tasks(self) -> Set[str]:
        return {TASK}

    def begin(self, task: Pass) -> None:
        self._pass = task
        self._rows = Rows(task.rows)
        self.columns = Columns(task.tokens.n_positions)

    def end(self) -> None:
        self._pass = self._rows = self.columns = None

    @property
    def head(self) -> Head:
        """The model's own head in float32; made once, at the first step."""
        if self._head is None:
            self._head = head_of(self._model[0])
        return self._head

    @torch.inference_mode()
    def forward(
        self, hidden_states: Tensor, pooling_metadata: PoolingMetadata
    ) -> list[Tensor | None]:
        cursor = pooling_metadata.get_pooling_cursor()
        counts = cursor.num_scheduled_tokens_cpu.tolist()
        if self._pass is None:  # vLLM tries out a model before anything is asked of it
            return [hidden_states.new_zeros(1) for _ in counts]
        ends = cursor.seq_lens_cpu.tolist()
        tokens = self._pass.tokens
        rows, places, offset = [], [], 0
        for params, count, end in zip(pooling_metadata.pooling_params, counts, ends, strict=True):
            window = params.extra_kwargs["window"]
            after = tokens.predicted(window, end - count, end)
            wanted = np.flatnonzero(tokens.scored[after])
            rows.append(wanted + offset)
            places.append(after[wanted])
            offset += count
        self._reduce(hidden_states, np.concatenate(rows), np.concatenate(places))
        return [hidden_states.new_zeros(1) for _ in counts]

    def _reduce(self, hidden_states: Tensor, rows: np.ndarray, places: np.ndarray) -> None:
        """The step's scored rows (n,) of hidden states (tokens, width), which predict `places`."""
        task, stored, columns = self._pass, self._rows, self.columns
        assert task is not None
        assert stored is not None
        assert columns is not None
        if not len(rows):
            return
        device = hidden_states.device
        hidden = hidden_states[torch.from_numpy(rows).to(device)]  # (n, width)
        positions = task.tokens.position_of[places]
        if task.fills:
            targets = torch.from_numpy(task.tokens.ids[places].astype(np.int64)).to(device)
            found = base_rows(hidden, self.head, targets, chunk=task.chunk, route=task.route)
            stored.put(positions, found)
            columns.seen[positions] = True
            return
        scores = compare(
            hidden,
            self.head,
            stored.at(positions, device),
            chunk=task.chunk,
            base_head=None if task.route == "identity" else self.head,
            reverse=task.reverse,
        )
        columns.put(positions, scores)


def head_of(model: nn.Module) -> Head:
    """vLLM pads vocabularies; the padding is no token. Raises ValueError for a part of a head."""
    layer, processor = model.lm_head, model.logits_processor
    if layer.tp_size > 1:
        raise ValueError(f"the head is spread over {layer.tp_size} workers; it must be whole")
    weight = layer.weight[: layer.org_vocab_size].detach()
    bias = getattr(layer, "bias", None)
    return Head(
        weight=weight.float(),
        bias=None if bias is None else bias[: layer.org_vocab_size].detach().float(),
        scale=float(processor.scale),
        softcap=processor.soft_cap,
    )
