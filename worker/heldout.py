"""Held-out loss, the law's L_ft: nats per supervised token."""

from collections.abc import Callable, Iterator, Sequence

import torch
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


@torch.no_grad()
def heldout_loss(
    model: PreTrainedModel, rows: Sequence[Row], *, on_rows: OnRows | None = None
) -> float:
    """Mean over all supervised tokens of all rows of -log p(token | tokens before it).

    Each token weighs the same whichever row it is in. Hidden states have the model's dtype, their
    logits are made and reduced in float32 chunk by chunk, sums are float64. Raises what
    `head_of` does.
    """
    model.eval()
    head = candidate_head(model)
    chunk = max(1, LOGITS_BUDGET.get(model.device.type, 2**25) // len(head.weight))
    total = torch.zeros((), dtype=torch.float64)
    n_tokens = n_rows = 0
    for batch in _batches(rows, TOKENS_AT_ONCE.get(model.device.type, 2**12)):
        hidden, targets = _supervised(model, batch)
        for part, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = head.logits(part)  # (chunk, vocab) float32
            nll = logits.logsumexp(-1) - logits.gather(1, wanted[:, None])[:, 0]
            total += nll.double().sum().cpu()
        n_tokens += len(targets)
        n_rows += len(batch)
        if on_rows is not None:
            on_rows(n_rows, len(rows))
    return total.item() / n_tokens


def _supervised(model: PreTrainedModel, batch: list[Row]) -> tuple[Tensor, Tensor]:
    """Hidden states (tokens, width) that predict a supervised token, and those tokens (tokens,)."""
    length = max(len(row.input_ids) for row in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(batch):
        ids[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    ids, labels = ids.to(model.device), labels.to(model.device)
    scored = labels[:, 1:] != IGNORED  # (rows, length - 1)
    return hidden_states(model, ids)[:, :-1][scored], labels[:, 1:][scored]


def _batches(rows: Sequence[Row], budget: int) -> Iterator[list[Row]]:
    """Rows of like length together, at most `budget` tokens with their padding."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.input_ids)):
        if batch and (len(batch) + 1) * len(row.input_ids) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
