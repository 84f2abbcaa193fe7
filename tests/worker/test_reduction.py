"""The C and its twin in torch, against float64."""

import pytest
import torch
from torch import Tensor

from worker import reduction
from worker.reduction import exponentials_, fold_, largest_
from worker.stream import log_sum_exp, nothing_yet

ROWS, WIDTH = 33, 2049  # neither is a multiple of what the C takes at a time


@pytest.fixture(params=["c", "torch"])
def logits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    if request.param == "torch":
        monkeypatch.setattr(reduction, "native", lambda: None)
    assert reduction.reduction_name(torch.device("cpu")) == request.param
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)) * 6


def test_sums_of_exponentials_agree_with_float64(logits: Tensor) -> None:
    best = logits.amax(dim=1)
    wanted = (logits.double() - best.double()[:, None]).exp()
    sums = exponentials_(logits, best)
    assert sums.dtype == torch.float64
    assert ((sums - wanted.sum(dim=1)) / wanted.sum(dim=1)).abs().max() < 5e-7
    assert (logits.double() - wanted).abs().max() < 5e-7


def test_a_row_gives_the_same_bits_in_any_company(logits: Tensor) -> None:
    best = logits.amax(dim=1)
    alone = [
        exponentials_(row[None].clone(), top[None]) for row, top in zip(logits, best, strict=True)
    ]
    assert torch.equal(exponentials_(logits.clone(), best), torch.cat(alone))


@pytest.mark.parametrize("k", [1, 5])
def test_the_largest_are_found_over_blocks(logits: Tensor, k: int) -> None:
    values = torch.full((ROWS, k), -torch.inf)
    ids = torch.zeros((ROWS, k), dtype=torch.int64)
    for start in range(0, WIDTH, 600):
        largest_(logits[:, start : start + 600], start, values, ids)
    wanted = logits.topk(k, dim=1)
    assert torch.equal(values, wanted.values)
    assert torch.equal(ids, wanted.indices)


def test_of_equals_the_first_stays(logits: Tensor) -> None:
    logits[:, 100] = logits[:, 700] = logits[:, 701] = 99.0
    values, ids = torch.full((ROWS, 1), -torch.inf), torch.zeros((ROWS, 1), dtype=torch.int64)
    for start in (0, 600):
        largest_(logits[:, start : start + 600], start, values, ids)
    assert ids.unique().tolist() == [100]


def test_nan_and_infinity_are_not_hidden(logits: Tensor) -> None:
    logits[3, 7], logits[5, 9] = torch.nan, torch.inf
    sums = exponentials_(logits, logits.nan_to_num(-9.0, posinf=torch.inf).amax(dim=1))
    assert (~sums.isfinite()).nonzero().flatten().tolist() == [3, 5]


def test_blocks_fold_into_what_float64_says_of_the_whole(logits: Tensor) -> None:
    numbers = torch.Generator().manual_seed(2)
    wanted = torch.stack([torch.randperm(WIDTH, generator=numbers)[:7] for _ in range(ROWS)])
    wanted[:, 5] = wanted[:, 0]  # a token may be asked for twice
    known = nothing_yet(wanted, apart=5)
    for start in range(0, WIDTH, 600):
        fold_(logits[:, start : start + 600].clone(), start, known)
    exact = logits.double()
    assert ((log_sum_exp(known) - exact.logsumexp(dim=1)).abs() < 1e-6).all()
    assert torch.equal(known.found, logits.gather(1, wanted))
    others = logits.scatter(1, wanted[:, :5], -torch.inf).max(dim=1)
    assert torch.equal(known.outside, others.values)
    assert torch.equal(known.outside_id, others.indices)


def test_folding_is_the_same_to_the_bit_whether_or_not_exponentials_are_kept(
    logits: Tensor,
) -> None:
    targets = torch.arange(ROWS)[:, None]
    plain, keeping = nothing_yet(targets, apart=1), nothing_yet(targets)
    mass = torch.zeros(ROWS, dtype=torch.float64)
    for start in range(0, WIDTH, 600):
        fold_(logits[:, start : start + 600].clone(), start, plain)
        block = logits[:, start : start + 600].clone()
        scale = fold_(block, start, keeping, keep=True)
        assert scale is not None
        mass = mass * scale + block.double().sum(dim=1)
    assert torch.equal(log_sum_exp(plain), log_sum_exp(keeping))
    assert ((mass / keeping.total - 1).abs() < 1e-6).all()


def test_folding_hides_no_nan_and_no_infinity(logits: Tensor) -> None:
    logits[3, 7], logits[5, 9] = torch.nan, torch.inf
    known = nothing_yet(torch.zeros(ROWS, 1, dtype=torch.int64))
    fold_(logits, 0, known)
    assert (~log_sum_exp(known).isfinite()).nonzero().flatten().tolist() == [3, 5]
