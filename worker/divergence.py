"""The per-position kernel: two hidden states in, every divergence field out.

Row i of `hidden` predicts `targets[i]`. Logits exist for `chunk` rows at a time, in float32; the
numbers kept per position are float64, its vectors float32 or the model's dtype. KL is a small
difference of large numbers, so the base's own entropy is always reduced by the route that the
cross-entropy takes: a model against itself gives exactly 0.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Route = Literal["identity", "logits"]
"""`identity`: one shared linear head, so that sum_v p_base(v) logit_tuned(v) = e . h_tuned with
e = W^T p_base, and base logits are never needed again. `logits`: both logits are made, for any
pair of heads, soft caps and the reverse direction."""

TOP = 5
VOCAB_BLOCK = 2048


@dataclass(frozen=True)
class Head:
    """logits = softcap(scale * (W h + b)), in float32 whatever the model's dtype."""

    weight: Tensor  # (vocab, width) float32
    bias: Tensor | None = None  # (vocab,) float32
    scale: float = 1.0
    softcap: float | None = None
    source: Tensor | None = None  # the model's own tensor that `weight` is the float32 of

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, width) in any dtype -> (rows, vocab) float32, a tensor of the caller's own."""
        logits = hidden.float() @ self.weight.t()
        if self.bias is not None:
            logits.add_(self.bias)
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def same_as(self, other: "Head") -> bool:
        """Whether the identity may be used between two models: one linear head, bit for bit."""
        if self.softcap is not None or other.softcap is not None or self.scale != other.scale:
            return False
        if (self.bias is None) != (other.bias is None):
            return False
        if self.bias is not None and other.bias is not None:
            return torch.equal(self.weight, other.weight) and torch.equal(self.bias, other.bias)
        return self.weight is other.weight or torch.equal(self.weight, other.weight)


@dataclass(frozen=True)
class BaseRows:
    """What the base leaves behind per position; enough to score any number of candidates."""

    vectors: Tensor  # identity: e = W^T p_base, float32; logits: hidden, model's dtype (n, width)
    offset: Tensor  # sum_v p_base(v) b(v), float64; 0 without a head bias (n,)
    targets: Tensor  # token that came, int64 (n,)
    h_base: Tensor  # entropy of the base, nats, float64 (n,)
    nll_base: Tensor  # -log p_base(target), float64 (n,)
    top_id: Tensor  # argmax p_base, int64 (n,)
    top_p: Tensor  # its probability, float64 (n,)
    top5: Tensor  # ids of the five likeliest, int64 (n, 5)


@dataclass(frozen=True)
class PositionScores:
    """One candidate against the base, per position; nats, natural log."""

    kl: Tensor  # KL(base || tuned) = ce_soft - h_base, float64 (n,)
    ce_soft: Tensor  # -sum_v p_base log p_tuned, float64 (n,)
    ce_hard: Tensor  # -log p_tuned(argmax p_base), float64 (n,)
    nll_tuned: Tensor  # -log p_tuned(target), float64 (n,)
    tuned_top: Tensor  # argmax p_tuned, int64 (n,)
    same_top: Tensor  # bool (n,)
    same_top5: Tensor  # the base's five are a top five of the candidate too, bool (n,)
    kl_reverse: Tensor | None  # KL(tuned || base), float64 (n,)


def base_rows(hidden: Tensor, head: Head, targets: Tensor, *, chunk: int, route: Route) -> BaseRows:
    """Reduce the base's hidden states (n, width) chunk by chunk. See `BaseRows`."""
    if route == "identity" and head.softcap is not None:
        raise ValueError("a soft-capped head is not linear; use route='logits'")
    spans = _spans(len(hidden), chunk)
    parts = [_base_chunk(hidden[span], head, targets[span], route) for span in spans]
    return BaseRows(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(BaseRows)))


def compare(
    hidden: Tensor,
    head: Head,
    rows: BaseRows,
    *,
    chunk: int,
    base_head: Head | None = None,
    reverse: bool = False,
) -> PositionScores:
    """Score the candidate's hidden states (n, width) against the base's rows, position by position.

    With `base_head` the rows hold hidden states (route `logits`); without, they hold e (route
    `identity`) and `head` must be the head that the rows were made with.
    """
    if reverse and base_head is None:
        raise ValueError("the reverse direction needs the base's logits; use route='logits'")
    parts = [
        _compare_chunk(hidden[span], head, _slice(rows, span), base_head, reverse)
        for span in _spans(len(hidden), chunk)
    ]
    columns = {f.name: [getattr(p, f.name) for p in parts] for f in fields(PositionScores)}
    backward = columns.pop("kl_reverse")
    joined = {name: torch.cat(values) for name, values in columns.items()}
    return PositionScores(**joined, kl_reverse=torch.cat(backward) if reverse else None)


def _base_chunk(hidden: Tensor, head: Head, targets: Tensor, route: Route) -> BaseRows:
    logits = head.logits(hidden)  # (chunk, vocab)
    at_target = _pick(logits, targets)
    top_logits, top5 = logits.topk(min(TOP, logits.shape[1]), dim=1)
    # The first of equals, as the candidate's argmax takes it.
    top_id = logits.argmax(dim=1)
    offset = torch.zeros_like(at_target)
    if route == "identity":
        weights, lse = _exponentials(logits, top_logits[:, 0])
        total = weights.sum(dim=1)
        vectors = _mix(weights, head.weight) / total[:, None]
        if head.bias is not None:
            offset = (weights * head.bias).sum(dim=1).double() / total.double() * head.scale
        h_base = lse - _dot(vectors, hidden, head.scale) - offset
    else:
        vectors = hidden
        lse = _lse(logits.clone(), top_logits[:, 0])
        surprise = logits.neg_().add_(lse.float()[:, None])  # -log p_base
        h_base = _dot_rows((-surprise).exp_(), surprise)
    return BaseRows(
        vectors=vectors,
        offset=offset,
        targets=targets,
        h_base=h_base,
        nll_base=lse - at_target,
        top_id=top_id,
        top_p=(_pick(top_logits, torch.zeros_like(top_id)) - lse).exp(),
        top5=top5,
    )


def _compare_chunk(
    hidden: Tensor, head: Head, rows: BaseRows, base_head: Head | None, reverse: bool
) -> PositionScores:
    logits = head.logits(hidden)  # (chunk, vocab)
    at_target, at_base_top = _pick(logits, rows.targets), _pick(logits, rows.top_id)
    best, tuned_top = logits.max(dim=1)
    same_top5 = _is_top(logits, rows.top5)
    kl_reverse = None
    if base_head is None:
        _, lse = _exponentials(logits, best)
        ce_soft = lse - _dot(rows.vectors, hidden, head.scale) - rows.offset
        kl = ce_soft - rows.h_base
    else:
        base = base_head.logits(rows.vectors)
        base_lse = _lse(base.clone(), base.amax(dim=1))
        lse = _lse(logits.clone(), best)
        # log p_base - log p_tuned, near 0 everywhere: its mean loses no digits to cancellation.
        gap = base.sub(logits).sub_((base_lse - lse).float()[:, None])
        kl = _dot_rows(base.sub_(base_lse.float()[:, None]).exp_(), gap)
        ce_soft = rows.h_base + kl
        if reverse:
            p_tuned = logits.sub_(lse.float()[:, None]).exp_()
            kl_reverse = -_dot_rows(p_tuned, gap)
    return PositionScores(
        kl=kl,
        ce_soft=ce_soft,
        ce_hard=lse - at_base_top,
        nll_tuned=lse - at_target,
        tuned_top=tuned_top,
        same_top=tuned_top == rows.top_id,
        same_top5=same_top5,
        kl_reverse=kl_reverse,
    )


def _exponentials(logits: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - best) in the logits' own memory, and the log-sum-exp in float64."""
    weights = logits.sub_(best[:, None]).exp_()
    return weights, best.double() + weights.sum(dim=1).double().log()


def _lse(logits: Tensor, best: Tensor) -> Tensor:
    """Log-sum-exp over the vocabulary, float64 (rows,). Overwrites `logits`."""
    return _exponentials(logits, best)[1]


def _mix(weights: Tensor, matrix: Tensor) -> Tensor:
    """weights @ matrix (rows, width), the vocabulary in blocks.

    In a product of a few rows each sum runs on over the whole vocabulary in float32, and is off by
    up to 2e-4 nats at 131k entries; sums over blocks stay at 2e-6 for any number of rows.
    """
    mixed = weights[:, :VOCAB_BLOCK] @ matrix[:VOCAB_BLOCK]
    for start in range(VOCAB_BLOCK, len(matrix), VOCAB_BLOCK):
        block = slice(start, start + VOCAB_BLOCK)
        mixed += weights[:, block] @ matrix[block]
    return mixed


def _dot(vectors: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """scale * (vectors . hidden) per row, in float64: this is the number that cancels."""
    return (vectors.double() * hidden.double()).sum(dim=1) * scale


def _dot_rows(left: Tensor, right: Tensor) -> Tensor:
    """Row-wise sum of left * right, pairwise in float32 (a matrix product would be biased)."""
    return left.mul_(right).sum(dim=1).double()


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """values[i, index[i]] as float64."""
    return values.gather(1, index[:, None])[:, 0].double()


def _is_top(logits: Tensor, ids: Tensor) -> Tensor:
    """Whether no logit outside `ids` (rows, k) exceeds one inside. Ties count as in."""
    inside = logits.gather(1, ids)
    floor = inside.amin(dim=1, keepdim=True)
    return (logits > floor).sum(dim=1) == (inside > floor).sum(dim=1)


def _spans(length: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]


def _slice(rows: BaseRows, span: slice) -> BaseRows:
    return BaseRows(*(getattr(rows, f.name)[span] for f in fields(BaseRows)))
