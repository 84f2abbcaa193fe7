"""Sequential decisions: what they see, where they stop, how often they are wrong."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks.gate import play, random_orders
from benchmarks.gate_populations import Scores
from service.laws.decide import Bounds, estimand
from service.laws.order import order
from service.laws.sequential import CLIP, Decision, Sequential, clipped_share
from service.laws.verdict import Verdict

N = 400
ORDER = [9, 7, 3, 8, 4, 5, 1, 2, 0, 6]


class Reader:
    """Scores that count who was read."""

    def __init__(self, kl: np.ndarray) -> None:
        self.kl = kl
        self.read: list[int] = []

    def score(self, windows: np.ndarray) -> np.ndarray:
        self.read += windows.tolist()
        return self.kl[windows]


def example(*, seed: int = 3, sd: float = 0.4) -> Scores:
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(N) < 0.9, 127, rng.integers(1, 127, N))
    known = rng.normal(size=N)
    kl = np.exp(sd * (0.8 * known + 0.6 * rng.normal(size=N)))
    return Scores("example", kl * sizes / sizes.mean(), sizes, known[:, None])


def question(scores: Scores, *, ratio: float, seed: str = "a", **more: object) -> Sequential:
    return Sequential(
        scores.sizes,
        limit=scores.kl / ratio,
        alpha=0.05,
        order=order(seed, N),
        control=scores.control,
        **more,
    )


def kl_of(scores: Scores) -> np.ndarray:
    """Means over each window's positions."""
    return scores.values * scores.sizes.mean() / scores.sizes


def run(test: Sequential, reader: Reader, *, batch: int = 8, until: int = N) -> Decision | None:
    while test.decision is None and test.n_scored < until:
        windows = test.next_windows(batch)
        test.observe(windows, reader.score(windows))
    return test.decision


def test_the_order_is_the_same_everywhere() -> None:
    assert order("forgetting", 10).tolist() == ORDER
    assert sorted(order("x", 1000).tolist()) == list(range(1000))
    assert order("x", 1000).tolist() != order("y", 1000).tolist()


def test_the_order_is_uniform() -> None:
    first = np.bincount([order(str(i), 5)[0] for i in range(5000)], minlength=5)
    assert (np.abs(first - 1000) < 5 * np.sqrt(800)).all()


@pytest.mark.parametrize(("ratio", "verdict"), [(0.5, "pass"), (0.8, "pass"), (1.5, "fail")])
def test_only_what_was_scored_is_seen(ratio: float, verdict: str) -> None:
    scores = example()
    reader = Reader(kl_of(scores))
    test = question(scores, ratio=ratio)
    decision = run(test, reader)
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.n_scored == len(reader.read) < N
    assert reader.read == order("a", N)[: len(reader.read)].tolist()
    # Other values elsewhere: the same decision from the same windows.
    other = np.full(N, 1e6)
    other[reader.read] = reader.kl[reader.read]
    again = question(scores, ratio=ratio)
    assert run(again, Reader(other)) == decision


@pytest.mark.parametrize("batch", [1, 8, 50])
def test_an_exhausted_sequence_is_the_full_pass(batch: int) -> None:
    scores = example()
    for limit, verdict in (
        (scores.kl, Verdict.PASS),
        (scores.kl * (1 + 1e-9), Verdict.PASS),
        (scores.kl * (1 - 1e-9), Verdict.FAIL),
    ):
        test = Sequential(scores.sizes, limit=limit, alpha=1e-9, order=order("b", N))
        decision = run(test, Reader(kl_of(scores)), batch=batch)
        assert decision is not None
        assert (decision.verdict, decision.n_scored) == (verdict, N)
        assert decision.value == pytest.approx(scores.kl, rel=1e-12)
        assert (test.interval().low, test.interval().high) == (decision.value, decision.value)


def test_within_the_noise_floor_nothing_is_decided() -> None:
    scores = example()
    test = question(scores, ratio=1.0, noise_floor=0.01)
    decision = run(test, Reader(kl_of(scores)))
    assert decision is not None
    assert decision.verdict is Verdict.INCONCLUSIVE


def test_spent_windows_are_inconclusive() -> None:
    scores = example()
    test = question(scores, ratio=1.0, max_windows=44)
    decision = run(test, Reader(kl_of(scores)))
    assert decision is not None
    assert (decision.verdict, decision.n_scored) == (Verdict.INCONCLUSIVE, 44)
    assert len(test.next_windows(8)) == 0


@pytest.mark.parametrize("ratio", [0.8, 0.97, 1.02])
@pytest.mark.parametrize("pause", [8, 24, 96])
def test_a_resumed_test_goes_on_and_looks_at_nothing_twice(ratio: float, pause: int) -> None:
    scores = example()
    straight = question(scores, ratio=ratio)
    expected = run(straight, Reader(kl_of(scores)))
    reader = Reader(kl_of(scores))
    first = question(scores, ratio=ratio)
    run(first, reader, until=pause)
    state = json.loads(json.dumps(first.to_json()))
    second = question(scores, ratio=ratio)
    second.restore(state)
    assert run(second, reader) == expected
    assert len(reader.read) == len(set(reader.read)) == straight.n_scored
    if second.n_scored < N:
        assert second.interval() == straight.interval()


def test_only_the_next_windows_are_taken() -> None:
    scores = example()
    test = question(scores, ratio=1.0)
    windows = test.next_windows(8)
    for wrong in (windows[::-1], windows + 1, test.order[8:16], windows[:0]):
        with pytest.raises(ValueError, match="not the next"):
            test.observe(wrong, np.ones(len(wrong)))
    with pytest.raises(ValueError, match="finite"):
        test.observe(windows, np.full(8, np.nan))
    test.observe(windows, np.ones(8))
    with pytest.raises(ValueError, match="not the next"):
        test.observe(windows, np.ones(8))


def test_too_many_clipped_windows_make_the_mean_itself_count() -> None:
    values = np.full(200, 0.1)
    values[:6] = 100.0
    bounds = Bounds(0.0, 10.0, 0.01)
    assert estimand(values, bounds) == pytest.approx(values.mean())
    assert estimand(values[5:], bounds) == pytest.approx((10 + 194 * 0.1) / 195)
    test = Sequential(np.ones(200, int), limit=1.0, alpha=0.05, order=order("c", 200))
    decision = run(test, Reader(values))
    assert decision is not None
    # Clipped the mean is 0.22, below the limit; but 3 % are clipped, so all was scored.
    assert (decision.verdict, decision.n_scored) == (Verdict.FAIL, 200)


@settings(max_examples=20, deadline=None)
@given(st.integers(-12, 12), st.integers(0, 50), st.sampled_from([0.5, 0.9, 1.3]))
def test_units_do_not_matter(power: int, seed: int, ratio: float) -> None:
    scores = example(seed=seed)
    decisions = []
    for unit in (1.0, 2.0**power):
        test = Sequential(
            scores.sizes,
            limit=unit * scores.kl / ratio,
            clip=unit * 8 * scores.kl,
            alpha=0.05,
            order=order(str(seed), N),
        )
        decisions.append(run(test, Reader(unit * kl_of(scores))))
    one, other = decisions
    assert one is not None
    assert other is not None
    assert (one.verdict, one.n_scored) == (other.verdict, other.n_scored)


def test_the_benchmark_decides_with_the_same_code() -> None:
    scores = example()
    orders = random_orders(N, 12, seed=5)
    for ratio in (0.8, 0.97, 1.03, 1.3):
        limit = scores.kl / ratio
        bounds = Bounds(0.0, CLIP * limit, clipped_share(CLIP))
        cell = play(scores, orders, limit=limit, bounds=bounds)
        for row, windows in enumerate(orders):
            test = Sequential(
                scores.sizes, limit=limit, alpha=0.05, order=windows, control=scores.control
            )
            decision = run(test, Reader(kl_of(scores)))
            assert decision is not None
            assert decision.n_scored == cell.stops[0, row]
            wrong = decision.verdict != ("fail" if cell.above else "pass")
            assert wrong == cell.wrong[0, row]


@pytest.mark.parametrize("clip", [2.0, 4.0, 10.0, 50.0])
def test_clipped_windows_are_worth_a_tenth_of_the_limit_whatever_the_clip(clip: float) -> None:
    assert clipped_share(clip) * clip == pytest.approx(0.1)


def allowed(alpha: float, n: int) -> int:
    """More wrong verdicts than this come by chance once in a thousand."""
    return int(binom.isf(1e-3, n, alpha))


@pytest.mark.parametrize("ratio", [0.99, 1.0, 1.001, 1.02])
@pytest.mark.parametrize("sd", [0.3, 1.2])
def test_wrong_verdicts_are_as_rare_as_said(ratio: float, sd: float) -> None:
    scores = example(sd=sd)
    limit = scores.kl / ratio
    orders = random_orders(N, 600, seed=9)
    cell = play(scores, orders, limit=limit, bounds=Bounds(0.0, 20 * limit, 0.01))
    assert cell.wrong[0].sum() <= allowed(0.05, 600)
    assert cell.wrong[1].sum() <= allowed(0.01, 600)


def test_looking_again_and_again_at_a_fixed_sample_test_is_wrong_more_often() -> None:
    """The negative control: on the same orders a z-test at each batch breaks its promise."""
    scores = example()
    orders = random_orders(N, 600, seed=9)
    values = scores.values[orders]
    wrong = np.zeros(600, bool)
    for t in range(16, N, 8):
        seen = values[:, :t]
        error = seen.std(axis=1) / np.sqrt(t) * np.sqrt(1 - t / N)
        wrong |= seen.mean(axis=1) - scores.kl > 1.645 * error
    assert wrong.sum() > 2 * allowed(0.05, 600)


def test_hidden_spikes_are_missed_no_more_often_than_said() -> None:
    """1.25 % of the windows at a hundred limits: a pass before the end would be wrong."""
    values = np.full(N, 0.5)
    values[:5] = 100.0
    scores = Scores("spikes", values, np.full(N, 127), np.zeros((N, 0)))
    cell = play(scores, random_orders(N, 1000, seed=2), limit=1.0, bounds=Bounds(0.0, 10.0, 0.01))
    assert cell.above
    assert cell.wrong[0].sum() <= allowed(0.05, 1000)
    assert cell.wrong[0].sum() > 0
    without = play(scores, random_orders(N, 100, seed=2), limit=1.0, bounds=Bounds(0.0, 10.0))
    assert not without.above  # clipped the mean is 0.62


def test_intervals_cover_and_never_contradict_the_verdict() -> None:
    scores = example()
    missed = 0
    for seed in range(100):
        test = question(scores, ratio=0.9 if seed % 2 else 1.2, seed=str(seed))
        decision = run(test, Reader(kl_of(scores)), until=200)
        interval = test.interval()
        assert interval.scope == "this_corpus"
        missed += not interval.low <= scores.kl <= interval.high
        if decision is not None and decision.verdict is Verdict.FAIL:
            assert interval.low >= test.limit
        if decision is not None and decision.verdict is Verdict.PASS:
            assert interval.high <= test.limit
    assert missed <= allowed(0.1, 100)


def test_a_known_control_saves_windows() -> None:
    scores = example(sd=0.6)
    orders = random_orders(N, 100, seed=1)
    blind = Scores("blind", scores.values, scores.sizes, np.zeros((N, 0)))
    limit = scores.kl / 1.1
    bounds = Bounds(0.0, 10 * limit, 0.01)
    with_control = play(scores, orders, limit=limit, bounds=bounds).stops[0]
    without = play(blind, orders, limit=limit, bounds=bounds).stops[0]
    assert np.median(with_control) < 0.8 * np.median(without)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0.0}, {"alpha": 0.6}, {"clip": 0.5}, {"order": [0, 0, 1]}]
)
def test_impossible_questions_are_refused(wrong: dict[str, object]) -> None:
    asked: dict[str, object] = {"limit": 1.0, "alpha": 0.05, "order": [0, 1, 2], **wrong}
    with pytest.raises(ValueError, match=r"limit|alpha|order"):
        Sequential([127, 127, 10], **asked)
