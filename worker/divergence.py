"""The per-position kernel: two hidden states in, every divergence field out.

Row i of `hidden` predicts `targets[i]`. Logits exist in float32 for `chunk` rows at a time; where
the head is linear, for `chunk` rows and one block of the vocabulary. The numbers kept per position
are float64, its vectors float32 or the model's dtype. KL is a small difference of large numbers,
so the base's own entropy is always reduced by the route that the cross-entropy takes: a model
against itself gives exactly 0.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from worker.product import bfloat16_product, product
from worker.reduction import exponentials_, fold_, largest_
from worker.stream import VOCAB_BLOCK, log_sum_exp, nothing_yet, spans, vocabulary_blocks

Route = Literal["identity", "logits"]
"""`identity`: one shared linear head, so that sum_v p_base(v) logit_tuned(v) = e . h_tuned with
e = W^T p_base, and base logits are never needed again. `logits`: both logits are made, for any
pair of heads, soft caps and the reverse direction."""

TOP = 5


@dataclass(frozen=True)
class Head:
    """logits = softcap(scale * (W h + b)), in float32 whatever the model's dtype."""

    weight: Tensor  # (vocab, width) float32
    bias: Tensor | None = None  # (vocab,) float32
    scale: float = 1.0
    softcap: float | None = None
    source: Tensor | None = None  # the model's own tensor that `weight` is the float32 of

    def logits(self, hidden: Tensor, tokens: slice = slice(None)) -> Tensor:
        """(rows, width) in any dtype -> (rows, tokens) float32, a tensor of the caller's own."""
        logits = self._product(hidden, tokens)
        if self.bias is not None:
            logits.add_(self.bias[tokens])
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def _product(self, hidden: Tensor, tokens: slice) -> Tensor:
        if self.source is not None:
            logits = bfloat16_product(hidden, self.source[tokens])
            if logits is not None:
                return logits
        return product(hidden.float(), self.weight[tokens])

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
    reduce = _base_by_identity if route == "identity" else _base_by_logits
    rows = chunk if route == "identity" else _whole_rows(chunk, head)
    parts = [reduce(hidden[span], head, targets[span]) for span in spans(len(hidden), rows)]
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
    parts = []
    for span in spans(len(hidden), chunk if base_head is None else _whole_rows(chunk, head)):
        part, its_rows = hidden[span], _slice(rows, span)
        if base_head is None:
            parts.append(_compare_by_identity(part, head, its_rows))
        else:
            parts.append(_compare_by_logits(part, head, its_rows, base_head, reverse))
    columns = {f.name: [getattr(p, f.name) for p in parts] for f in fields(PositionScores)}
    backward = columns.pop("kl_reverse")
    joined = {name: torch.cat(values) for name, values in columns.items()}
    return PositionScores(**joined, kl_reverse=torch.cat(backward) if reverse else None)


def _base_by_identity(hidden: Tensor, head: Head, targets: Tensor) -> BaseRows:
    known = nothing_yet(targets[:, None])
    top, top_ids = _top_of(len(head.weight), hidden)
    mixed = torch.zeros(len(hidden), head.weight.shape[1], device=hidden.device)
    mixed_bias = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
    for tokens in vocabulary_blocks(head.weight):
        block = head.logits(hidden, tokens)  # (chunk, block)
        largest_(block, tokens.start, top, top_ids)
        scale = fold_(block, tokens.start, known, keep=True)
        assert scale is not None
        # Block by block, because in a product of a few rows one sum in float32 runs on over the
        # whole vocabulary, and is off by up to 2e-4 nats at 131k entries.
        mixed.mul_(scale.float()[:, None]).add_(product(block, head.weight[tokens].t()))
        if head.bias is not None:
            mixed_bias.mul_(scale).add_((block * head.bias[tokens]).sum(dim=1))
    vectors = mixed.div_(known.total.float()[:, None])
    offset = mixed_bias / known.total * head.scale
    lse = log_sum_exp(known)
    return BaseRows(
        vectors=vectors,
        offset=offset,
        targets=targets,
        h_base=lse - _dot(vectors, hidden, head.scale) - offset,
        nll_base=lse - known.found[:, 0].double(),
        top_id=top_ids[:, 0].clone(),
        top_p=(top[:, 0].double() - lse).exp(),
        top5=top_ids,
    )


def _compare_by_identity(hidden: Tensor, head: Head, rows: BaseRows) -> PositionScores:
    wanted = torch.cat([rows.top5, rows.top_id[:, None], rows.targets[:, None]], dim=1)
    five = rows.top5.shape[1]
    known = nothing_yet(wanted, apart=five)
    for tokens in vocabulary_blocks(head.weight):
        fold_(head.logits(hidden, tokens), tokens.start, known)
    lse = log_sum_exp(known)
    ce_soft = lse - _dot(rows.vectors, hidden, head.scale) - rows.offset
    # The first of equals, as everywhere.
    inside, place = known.found[:, :five].max(dim=1)
    inside_id = rows.top5.gather(1, place[:, None])[:, 0]
    outside, outside_id = known.outside, known.outside_id
    earlier = (outside == inside) & (outside_id < inside_id)
    tuned_top = torch.where((outside > inside) | earlier, outside_id, inside_id)
    return PositionScores(
        kl=ce_soft - rows.h_base,
        ce_soft=ce_soft,
        ce_hard=lse - known.found[:, five].double(),
        nll_tuned=lse - known.found[:, five + 1].double(),
        tuned_top=tuned_top,
        same_top=tuned_top == rows.top_id,
        same_top5=outside <= known.found[:, :five].amin(dim=1),
        kl_reverse=None,
    )


def _base_by_logits(hidden: Tensor, head: Head, targets: Tensor) -> BaseRows:
    logits = head.logits(hidden)  # (rows, vocab)
    at_target = _pick(logits, targets)
    top, top_ids = _top_of(logits.shape[1], hidden)
    largest_(logits, 0, top, top_ids)
    top_logit, top_id = top[:, 0].clone(), top_ids[:, 0].clone()
    lse = _lse(logits.clone(), top_logit)
    surprise = logits.neg_().add_(lse.float()[:, None])  # -log p_base
    return BaseRows(
        vectors=hidden,
        offset=torch.zeros_like(at_target),
        targets=targets,
        h_base=_dot_rows((-surprise).exp_(), surprise),
        nll_base=lse - at_target,
        top_id=top_id,
        top_p=(top_logit.double() - lse).exp(),
        top5=top_ids,
    )


def _compare_by_logits(
    hidden: Tensor, head: Head, rows: BaseRows, base_head: Head, reverse: bool
) -> PositionScores:
    logits = head.logits(hidden)  # (rows, vocab)
    at_target, at_base_top = _pick(logits, rows.targets), _pick(logits, rows.top_id)
    best, tuned_top = logits.max(dim=1)
    same_top5 = _is_top(logits, rows.top5)
    base = base_head.logits(rows.vectors)
    base_lse = _lse(base.clone(), base.amax(dim=1))
    lse = _lse(logits.clone(), best)
    # log p_base - log p_tuned, near 0 everywhere: its mean loses no digits to cancellation.
    gap = base.sub(logits).sub_((base_lse - lse).float()[:, None])
    kl = _dot_rows(base.sub_(base_lse.float()[:, None]).exp_(), gap)
    kl_reverse = None
    if reverse:
        p_tuned = logits.sub_(lse.float()[:, None]).exp_()
        kl_reverse = -_dot_rows(p_tuned, gap)
    return PositionScores(
        kl=kl,
        ce_soft=rows.h_base + kl,
        ce_hard=lse - at_base_top,
        nll_tuned=lse - at_target,
        tuned_top=tuned_top,
        same_top=tuned_top == rows.top_id,
        same_top5=same_top5,
        kl_reverse=kl_reverse,
    )


def _top_of(vocab: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the likeliest tokens of rows, for `largest_`: their logits and ids."""
    shape = (len(hidden), min(TOP, vocab))
    values = torch.full(shape, -torch.inf, device=hidden.device)
    return values, torch.zeros(shape, dtype=torch.int64, device=hidden.device)


def _lse(logits: Tensor, best: Tensor) -> Tensor:
    """Log-sum-exp over the vocabulary, float64 (rows,). Overwrites `logits`."""
    return best.double() + exponentials_(logits, best).log()


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


def _whole_rows(chunk: int, head: Head) -> int:
    """Rows of the whole vocabulary that take no more memory than a chunk's block."""
    return max(1, min(chunk, chunk * VOCAB_BLOCK[head.weight.device.type] // len(head.weight)))


def _slice(rows: BaseRows, span: slice) -> BaseRows:
    return BaseRows(*(getattr(rows, f.name)[span] for f in fields(BaseRows)))
