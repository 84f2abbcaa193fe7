"""Means, intervals over documents, percentiles, bins: from made scores, without a model."""

import time

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from worker.bootstrap import ratio_intervals
from worker.estimate import (
    METRICS,
    PERCENTILES,
    Positions,
    by_confidence,
    document_table,
    forgetting,
)

Float = NDArray[np.float64]


def made(documents: int = 60, *, seed: int = 1, scale: float = 1.0) -> Positions:
    """Documents of unlike lengths whose tokens drift together."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 400, documents)
    document = np.repeat(np.arange(documents, dtype=np.int32), lengths)
    n = len(document)
    drift = rng.gamma(2.0, size=documents)[document]
    h_base, nll_base = rng.gamma(3.0, size=n), rng.gamma(3.0, size=n)
    kl = scale * drift * rng.gamma(0.5, size=n)
    return Positions(
        {
            "kl": kl,
            "h_base": h_base,
            "ce_soft": h_base + kl,
            "ce_hard": rng.gamma(1.0, size=n),
            "same_top": rng.random(n) < 0.8,
            "same_top5": rng.random(n) < 0.5,
            "nll_base": nll_base,
            "nll_tuned": nll_base + 0.1 * drift,
            "top_p": rng.random(n),
        },
        document,
    )


def test_means_weigh_every_token_alike() -> None:
    positions = made()
    found = forgetting(positions)
    for name in METRICS:
        mean = positions.columns[name].mean()
        assert getattr(found, name).value == pytest.approx(mean, rel=1e-13)
    assert found.ce_soft.value - found.h_base == pytest.approx(found.kl.value, rel=1e-12)
    change = np.exp(-positions.columns["nll_tuned"]) - np.exp(-positions.columns["nll_base"])
    assert found.delta_p.mean == pytest.approx(change.mean(), rel=1e-12)
    assert found.delta_p.rms == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-12)
    assert found.ppl.ln_ratio == pytest.approx(np.log(found.ppl.tuned / found.ppl.base), rel=1e-9)
    assert found.kl_reverse is None


def test_intervals_are_scipys_bca() -> None:
    positions = made()
    names = ("kl", "ce_hard", "same_top")
    sums = positions.sums(names, 60)
    counts = np.bincount(positions.document).astype(float)
    found = ratio_intervals(sums, counts, n_bootstrap=40_000, seed=3)

    def ratio(total: Float, count: Float, axis: int = -1) -> Float:
        return total.sum(axis) / count.sum(axis)

    for column, interval in enumerate(found):
        wanted = scipy.stats.bootstrap(
            (sums[:, column], counts),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=40_000,
            batch=2000,
            method="BCa",
            rng=np.random.default_rng(4),
        ).confidence_interval
        width = wanted.high - wanted.low
        assert interval.low == pytest.approx(wanted.low, abs=0.03 * width)
        assert interval.high == pytest.approx(wanted.high, abs=0.03 * width)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    hits, runs = 0, 300
    for run in range(runs):
        counts = rng.integers(50, 500, 60).astype(float)
        means = rng.gamma(4.0, 0.25, 60)  # true mean 1, whatever the length
        (interval,) = ratio_intervals((means * counts)[:, None], counts, n_bootstrap=999, seed=run)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.90 <= hits / runs <= 0.985


def test_documents_and_not_tokens_are_resampled() -> None:
    positions = made()
    low, high = forgetting(positions).kl.ci95 or (0, 0)
    kl = positions.columns["kl"]
    of_tokens = 2 * 1.96 * kl.std() / np.sqrt(len(kl))
    assert high - low > 3 * of_tokens


def test_few_documents_have_no_interval_and_say_why() -> None:
    few = forgetting(made(9)).kl
    assert few.ci95 is None
    assert few.ci_reason == "9 documents; a bootstrap over documents needs 10"
    assert forgetting(made(10)).kl.ci95 is not None


def test_documents_without_positions_are_no_documents() -> None:
    positions = made(9)
    gap = Positions(positions.columns, positions.document * 2)
    assert forgetting(gap).kl.ci_reason == "9 documents; a bootstrap over documents needs 10"
    table = document_table(gap, [f"title {i}" for i in range(18)])
    assert [row.index for row in table] == list(range(0, 18, 2))


def test_an_untouched_model_has_a_zero_wide_interval() -> None:
    found = forgetting(made(scale=0.0))
    assert found.kl.value == 0
    assert found.kl.ci95 == (0, 0)


def test_the_same_seed_gives_the_same_interval_in_under_a_second() -> None:
    positions = made(60)
    started = time.process_time()
    first = forgetting(positions, seed=7)
    assert time.process_time() - started < 1
    assert first == forgetting(positions, seed=7)
    assert first.kl.ci95 != forgetting(positions, seed=8).kl.ci95


def test_many_documents_fit_in_memory() -> None:
    """Blocks of resamples: 20,000 documents would otherwise need 1.6 GB."""
    counts = np.ones(20_000)
    (interval,) = ratio_intervals(np.arange(20_000.0)[:, None], counts, n_bootstrap=200)
    assert interval.low < 9999.5 < interval.high


def test_percentiles() -> None:
    positions = made()
    kl = np.sort(positions.columns["kl"])
    found = forgetting(positions).kl_percentiles
    assert list(found) == list(PERCENTILES)
    assert (found["min"], found["max"]) == (kl[0], kl[-1])
    for name, percent in PERCENTILES.items():
        assert found[name] == pytest.approx(np.percentile(kl, percent))
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_bins_by_confidence() -> None:
    columns = {
        "top_p": np.array([0.0, 0.05, 0.1, 0.95, 1.0]),
        "kl": np.array([1.0, 3.0, 5.0, 7.0, 9.0]),
        "same_top": np.array([True, False, True, True, True]),
    }
    bins = by_confidence(columns)
    assert [b.n_positions for b in bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[0].kl, bins[0].same_top) == (2.0, 0.5)
    assert (bins[5].kl, bins[5].same_top) == (None, None)
    assert (bins[9].kl, bins[9].high) == (8.0, 1.0)


def test_document_table_adds_up() -> None:
    positions = made(12)
    table = document_table(positions, [f"title {i}" for i in range(12)])
    counts = np.array([row.n_positions for row in table])
    kl = np.array([row.kl for row in table])
    assert (counts * kl).sum() / counts.sum() == pytest.approx(positions.columns["kl"].mean())
    assert table[3].title == "title 3"


def test_a_ruined_candidate_is_still_reported() -> None:
    positions = made()
    columns = {**positions.columns, "nll_tuned": positions.columns["nll_tuned"] + 5000}
    found = forgetting(Positions(columns, positions.document))
    assert np.isfinite(found.ppl.tuned)
    assert found.ppl.ln_ratio > 4999
