"""Held-out loss, the law's L_ft: nats per supervised token."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from worker.data import IGNORED, Row
from worker.head import candidate_head, hidden_states

LOGITS_BUDGET = {"cpu": 2**25, "cuda": 2**28}
"""Values of float32 logits that exist at a time: 128 MB, 1 GB."""
TOKENS_AT_ONCE = {"cpu": 2**12, "cuda": 2**14}
"""Tokens in one forward pass, padding included; a longer row goes alone."""

OnRows = Callable[[int, int], None]
"""(rows done, rows in all); may raise to end the measurement."""


@dataclass(frozen=True)
class RowLosses:
    """Of each held-out row, in the dataset's order."""

    nll: NDArray[np.float64]  # sums over supervised tokens, nats (rows,)
    tokens: NDArray[np.int64]  # how many those are (rows,)

    @property
    def mean(self) -> float:
        """Each token weighs the same whichever row it is in."""
        return float(self.nll.sum() / self.tokens.sum())


def heldout_loss(
    model: PreTrainedModel, rows: Sequence[Row], *, on_rows: OnRows | None = None
) -> float:
    """Mean over all supervised tokens of all rows of -log p(token | tokens before it)."""
    return heldout_rows(model, rows, on_rows=on_rows).mean


@torch.no_grad()
def heldout_rows(
    model: PreTrainedModel, rows: Sequence[Row], *, on_rows: OnRows | None = None
) -> RowLosses:
    """-log p(token | tokens before it), summed per row.

    Hidden states have the model's dtype, their logits are made and reduced in float32 chunk by
    chunk, sums are float64. Raises what `head_of` does.
    """
    model.eval()
    head = candidate_head(model)
    chunk = max(1, LOGITS_BUDGET.get(model.device.type, 2**25) // len(head.weight))
    nll, tokens = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    n_rows = 0
    for batch in _batches(rows, TOKENS_AT_ONCE.get(model.device.type, 2**12)):
        hidden, targets, counts = _supervised(model, [rows[i] for i in batch])
        losses = []
        for part, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = head.logits(part)  # (chunk, vocab) float32
            losses.append(logits.logsumexp(-1) - logits.gather(1, wanted[:, None])[:, 0])
        row = np.repeat(batch, counts)
        nll += np.bincount(row, torch.cat(losses).double().cpu().numpy(), len(rows))
        tokens[batch] = counts
        n_rows += len(batch)
        if on_rows is not None:
            on_rows(n_rows, len(rows))
    return RowLosses(nll, tokens)


def _supervised(
    model: PreTrainedModel, batch: list[Row]
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Hidden states (tokens, width) that predict a supervised token, those tokens (tokens,), and
    how many each row has."""
    length = max(len(row.input_ids) for row in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(batch):
        ids[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    ids, labels = ids.to(model.device), labels.to(model.device)
    scored = labels[:, 1:] != IGNORED  # (rows, length - 1)
    counts = scored.sum(1).cpu().numpy()
    return hidden_states(model, ids)[:, :-1][scored], labels[:, 1:][scored], counts


def _batches(rows: Sequence[Row], budget: int) -> Iterator[list[int]]:
    """Indices of rows of like length together, at most `budget` tokens with their padding."""
    lengths = [len(row.input_ids) for row in rows]
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
