"""The kernel against hand-computed cases and an independent float64 computation."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.worker.sizes import Largest
from worker.divergence import BaseRows, Head, PositionScores, Route, base_rows, compare

ROUTES: list[Route] = ["identity", "logits"]
ROWS, WIDTH, VOCAB = 3000, 32, 600


def score(
    base: Tensor,
    tuned: Tensor,
    head: Head,
    targets: Tensor,
    route: Route,
    *,
    chunk: int = 64,
    reverse: bool = False,
) -> tuple[BaseRows, PositionScores]:
    rows = base_rows(base, head, targets, chunk=chunk, route=route)
    other = head if route == "logits" else None
    return rows, compare(tuned, head, rows, chunk=chunk, base_head=other, reverse=reverse)


def make_head(**options: object) -> Head:
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(VOCAB, WIDTH, generator=rng) * 0.4
    bias = torch.randn(VOCAB, generator=rng) if options.pop("bias", False) else None
    return Head(weight, bias, **options)  # type: ignore[arg-type]


def make_hidden(head: Head, *, kl: float) -> tuple[Tensor, Tensor, Tensor]:
    """Base and tuned states whose mean KL is about `kl`, and targets."""
    rng = torch.Generator().manual_seed(2)
    base = torch.randn(ROWS, WIDTH, generator=rng)
    step = torch.randn(ROWS, WIDTH, generator=rng)
    size = 0.01
    for _ in range(2):  # KL grows with the square of the step
        size *= math.sqrt(kl / reference(base, base + size * step, head)["kl"].mean())
    return base, base + size * step, torch.randint(VOCAB, (ROWS,), generator=rng)


def log_p(hidden: Tensor, head: Head) -> NDArray[np.float64]:
    logits = hidden.numpy().astype(np.float64) @ head.weight.numpy().astype(np.float64).T
    logits = (logits + (0 if head.bias is None else head.bias.numpy())) * head.scale
    if head.softcap is not None:
        logits = head.softcap * np.tanh(logits / head.softcap)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def reference(base: Tensor, tuned: Tensor, head: Head) -> dict[str, NDArray[np.float64]]:
    b, t = log_p(base, head), log_p(tuned, head)
    top = b.argmax(-1)
    return {
        "kl": (np.exp(b) * (b - t)).sum(-1),
        "ce_soft": -(np.exp(b) * t).sum(-1),
        "h_base": -(np.exp(b) * b).sum(-1),
        "kl_reverse": (np.exp(t) * (t - b)).sum(-1),
        "ce_hard": -np.take_along_axis(t, top[:, None], -1)[:, 0],
        "same_top": t.argmax(-1) == top,
    }


@pytest.mark.parametrize("route", ROUTES)
def test_two_tokens_by_hand(route: Route) -> None:
    """Logits (h, 0): the base gives 3/4 and 1/4, the candidate 1/2 and 1/2."""
    head = Head(torch.tensor([[1.0], [0.0]]))
    base, tuned = torch.tensor([[math.log(3)]] * 2), torch.zeros(2, 1)
    rows, scores = score(base, tuned, head, torch.tensor([0, 1]), route)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    close = pytest.approx
    assert rows.h_base.tolist() == close([entropy] * 2, rel=1e-6)
    assert rows.nll_base.tolist() == close([math.log(4 / 3), math.log(4)], rel=1e-6)
    assert rows.top_p.tolist() == close([0.75] * 2, rel=1e-6)
    assert rows.top_id.tolist() == [0, 0]
    assert scores.ce_soft.tolist() == close([math.log(2)] * 2, rel=1e-6)
    assert scores.kl.tolist() == close([math.log(2) - entropy] * 2, rel=1e-5)
    assert scores.ce_hard.tolist() == close([math.log(2)] * 2, rel=1e-6)
    assert scores.nll_tuned.tolist() == close([math.log(2)] * 2, rel=1e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_the_top_token_may_change(route: Route) -> None:
    head = Head(torch.tensor([[1.0], [0.0]]))
    _, scores = score(torch.tensor([[2.0]]), torch.tensor([[-1.0]]), head, torch.tensor([0]), route)
    assert scores.same_top.tolist() == [False]
    assert scores.tuned_top.tolist() == [1]
    assert scores.ce_hard.item() == pytest.approx(math.log(1 + math.e), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"scale": 0.25, "bias": True}])
@pytest.mark.parametrize("route", ROUTES)
def test_means_agree_with_float64(route: Route, options: dict[str, object]) -> None:
    head = make_head(**dict(options))
    base, tuned, targets = make_hidden(head, kl=0.006)
    rows, scores = score(base, tuned, head, targets, route)
    wanted = reference(base, tuned, head)
    assert wanted["kl"].mean() == pytest.approx(0.006, rel=0.05)
    found = {"h_base": rows.h_base, "kl": scores.kl, "ce_soft": scores.ce_soft}
    found |= {"ce_hard": scores.ce_hard}
    for name, values in found.items():
        assert values.dtype == torch.float64
        assert values.mean().item() == pytest.approx(wanted[name].mean(), rel=1e-5), name
    assert scores.same_top.tolist() == wanted["same_top"].tolist()


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_the_mixture_is_summed_well_for_few_rows_too(chunk: int) -> None:
    """A running float32 sum over 40,000 tokens is off by 5e-5 nats."""
    rng = torch.Generator().manual_seed(3)
    head = Head(torch.randn(40_000, 64, generator=rng) * 0.3)
    hidden = torch.randn(8, 64, generator=rng)
    rows, _ = score(hidden, hidden, head, torch.zeros(8, dtype=torch.long), "identity", chunk=chunk)
    gap = np.abs(rows.h_base.numpy() - reference(hidden, hidden, head)["h_base"])
    assert gap.max() < 5e-6


def test_soft_cap_and_reverse_agree_with_float64() -> None:
    head = make_head(softcap=5.0)
    base, tuned, targets = make_hidden(head, kl=0.006)
    _, scores = score(base, tuned, head, targets, "logits", reverse=True)
    wanted = reference(base, tuned, head)
    assert scores.kl_reverse is not None
    assert scores.kl.mean().item() == pytest.approx(wanted["kl"].mean(), rel=1e-5)
    assert scores.kl_reverse.mean().item() == pytest.approx(wanted["kl_reverse"].mean(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_a_model_against_itself_is_exactly_zero(route: Route, dtype: torch.dtype) -> None:
    head = make_head(bias=True)
    base, _, targets = make_hidden(head, kl=0.1)
    rows, scores = score(base.to(dtype), base.to(dtype), head, targets, route)
    assert scores.kl.abs().max().item() == 0
    assert torch.equal(scores.ce_soft, rows.h_base)
    assert bool(scores.same_top.all())
    assert bool(scores.same_top5.all())


@pytest.mark.parametrize("route", ROUTES)
def test_soft_cross_entropy_less_entropy_is_kl(route: Route) -> None:
    head = make_head()
    base, tuned, targets = make_hidden(head, kl=0.3)
    rows, scores = score(base, tuned, head, targets, route)
    assert (scores.ce_soft - rows.h_base - scores.kl).abs().max().item() < 1e-14


@pytest.mark.parametrize("chunk", [1, 7, 199, 4096])
@pytest.mark.parametrize("route", ROUTES)
def test_chunk_size_does_not_matter(route: Route, chunk: int) -> None:
    head = make_head()
    base, tuned, targets = (part[:200] for part in make_hidden(head, kl=0.05))
    one = score(base, tuned, head, targets, route, chunk=64)
    other = score(base, tuned, head, targets, route, chunk=chunk)
    for a, b in zip(one, other, strict=True):
        for field in fields(a):
            left, right = getattr(a, field.name), getattr(b, field.name)
            if left is not None and left.is_floating_point():
                assert (left - right).abs().max().item() < 1e-5, field.name
                gap = (left.double().mean() - right.double().mean()).abs().item()
                assert gap < 1e-6, field.name


@pytest.mark.parametrize("route", ROUTES)
def test_logits_never_exist_beyond_one_chunk(route: Route) -> None:
    head, chunk = make_head(), 200  # larger than what is kept per position, and than W
    base, tuned, targets = make_hidden(head, kl=0.05)
    with Largest() as bounded:
        score(base, tuned, head, targets, route, chunk=chunk)
    with Largest() as whole:
        score(base, tuned, head, targets, route, chunk=ROWS)
    assert bounded.size <= chunk * VOCAB
    assert whole.size == ROWS * VOCAB  # the recorder does see logits


def test_top_five_is_a_set_and_ties_count_as_in() -> None:
    head = Head(torch.eye(8))
    base = torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]])
    reordered = torch.tensor([[4.0, 5, 6, 7, 8, 3, 2, 1]])
    tied = torch.tensor([[8.0, 7, 6, 5, 4, 4, 2, 1]])
    replaced = torch.tensor([[8.0, 7, 6, 5, 3, 4, 2, 1]])
    tuned = torch.cat([reordered, tied, replaced])
    _, scores = score(base.repeat(3, 1), tuned, head, torch.zeros(3, dtype=torch.long), "identity")
    assert scores.same_top5.tolist() == [True, True, False]


def test_what_the_identity_cannot_do_is_refused() -> None:
    head = make_head(softcap=5.0)
    hidden, targets = torch.zeros(2, WIDTH), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="not linear"):
        base_rows(hidden, head, targets, chunk=2, route="identity")
    rows = base_rows(hidden, make_head(), targets, chunk=2, route="identity")
    with pytest.raises(ValueError, match="reverse"):
        compare(hidden, make_head(), rows, chunk=2, reverse=True)


def test_heads_are_shared_only_when_equal_bit_for_bit() -> None:
    head = make_head(bias=True)
    assert head.same_as(make_head(bias=True))
    assert not head.same_as(make_head())
    assert not head.same_as(make_head(bias=True, scale=0.5))
    assert not head.same_as(Head(head.weight + 1e-6, head.bias))
    assert not make_head(softcap=5.0).same_as(make_head(softcap=5.0))
