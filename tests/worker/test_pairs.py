"""Differences of candidates: against scipy's bootstrap, and against the candidates' own values."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from worker.heldout import RowLosses
from worker.pairs import Side, pairs

Float = NDArray[np.float64]


def made(documents: int = 40, candidates: int = 3, *, rows: int = 30) -> list[Side]:
    """Documents that are hard for every candidate alike: what they share must cancel."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(50, 400, documents).astype(np.float64)
    hard = rng.gamma(1.0, size=documents)
    tokens = rng.integers(1, 40, rows)
    sides = []
    for i in range(candidates):
        kl = hard * (0.2 + 0.02 * i) + 0.01 * rng.normal(size=documents)
        agree = 0.9 - 0.05 * i + 0.01 * rng.normal(size=documents)
        sums = np.column_stack([kl, agree]) * lengths[:, None]
        losses = RowLosses(tokens * (2.0 + 0.1 * i + 0.1 * rng.normal(size=rows)), tokens)
        sides.append(Side(sums, lengths, np.repeat(kl, 2), losses))
    return sides


def ratio(sums: Float, counts: Float, axis: int = -1) -> Float:
    return sums.sum(axis) / counts.sum(axis)


def test_every_pair_once_and_its_differences_are_those_of_the_values() -> None:
    sides = made(candidates=4)
    found = pairs(sides, n_bootstrap=200)
    assert [(pair.a, pair.b) for pair in found] == [
        (a, b) for a in range(4) for b in range(a + 1, 4)
    ]
    for pair in found:
        a, b = sides[pair.a], sides[pair.b]
        means = (a.documents.sum(0) - b.documents.sum(0)) / a.positions.sum()
        assert [pair.kl.value, pair.same_top.value] == pytest.approx(means, rel=1e-12)
        assert pair.heldout is not None
        assert a.losses is not None
        assert b.losses is not None
        assert pair.heldout.value == pytest.approx(a.losses.mean - b.losses.mean, rel=1e-12)
        assert pair.heldout.scope == "rows"


@pytest.mark.parametrize("metric", ["kl", "same_top", "heldout"])
def test_intervals_are_those_of_scipy(metric) -> None:
    a, b, _ = made()
    found = getattr(pairs([a, b])[0], metric)
    assert a.losses is not None
    assert b.losses is not None
    sums, counts = {
        "kl": (a.documents[:, 0] - b.documents[:, 0], a.positions),
        "same_top": (a.documents[:, 1] - b.documents[:, 1], a.positions),
        "heldout": (a.losses.nll - b.losses.nll, a.losses.tokens),
    }[metric]
    peer = scipy.stats.bootstrap(
        (sums, counts), ratio, paired=True, n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    width = peer.high - peer.low
    assert found.ci95 == pytest.approx((peer.low, peer.high), abs=0.05 * width)


def test_what_candidates_share_cancels() -> None:
    """Unpaired, the hard documents of the one and the easy ones of the other would meet."""
    a, b, _ = made()
    pair = pairs([a, b])[0]
    alone = scipy.stats.bootstrap(
        (a.documents[:, 0], a.positions),
        ratio,
        paired=True,
        n_resamples=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert pair.kl.ci95 is not None
    assert pair.kl.ci95[1] - pair.kl.ci95[0] < 0.3 * (alone.high - alone.low)
    assert pair.kl.ci95[1] < 0


def test_blocks_of_pairs_have_the_same_resamples(monkeypatch) -> None:
    sides = made(candidates=5)
    whole = pairs(sides, n_bootstrap=500)
    monkeypatch.setattr("worker.pairs.PAIRS_AT_ONCE", 3)
    for one, other in zip(pairs(sides, n_bootstrap=500), whole, strict=True):
        assert one.kl.ci95 == pytest.approx(other.kl.ci95, rel=1e-12)
        assert one.same_top.ci95 == pytest.approx(other.same_top.ci95, rel=1e-12)


def test_few_documents_and_no_rows_say_so() -> None:
    sides = [Side(s.documents, s.positions, s.windows, None) for s in made(documents=9)]
    pair = pairs(sides)[0]
    assert pair.heldout is None
    assert pair.kl.ci95 is None
    assert pair.kl.ci_reason == "9 documents; a bootstrap over documents needs 10"


def test_windows_are_counted_one_by_one() -> None:
    a, b, _ = made()
    b.windows[0] = a.windows[0]
    tally = pairs([a, b], n_bootstrap=50)[0].windows
    less = int((a.windows < b.windows).sum())
    assert (tally.a_less, tally.equal) == (less, 1)
    assert tally.a_less + tally.b_less + tally.equal == len(a.windows)


def test_alone_there_is_no_pair() -> None:
    assert pairs(made(candidates=1)) == []
