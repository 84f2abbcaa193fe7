"""Checks, their statistics, and the one verdict of all."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.laws.gate import Conditions, Gate, Outcome, differences
from service.laws.order import order
from service.laws.statistic import BadCheck, Check, Statistic, statistic_of
from service.laws.verdict import EXIT_CODES, Verdict, exit_code, overall

N = 300
SIZES = np.full(N, 20)


def positions(*, seed: int = 7) -> list[dict[str, np.ndarray]]:
    """Per window: KL about 0.1, a tail, agreement about 0.9, and a baseline's KL."""
    rng = np.random.default_rng(seed)
    found = []
    for size in SIZES:
        kl = rng.exponential(0.1, size) * np.exp(0.2 * rng.normal())
        found.append(
            {
                "kl": kl,
                "same_top": rng.random(size) < 0.9,
                "kl@prod": kl * rng.uniform(0.8, 1.0, size),
            }
        )
    return found


POSITIONS = positions()
KL = float(np.mean([window["kl"].mean() for window in POSITIONS]))
SAME_TOP = float(np.mean([window["same_top"].mean() for window in POSITIONS]))
INCREASE = float(np.mean([(window["kl"] - window["kl@prod"]).mean() for window in POSITIONS]))


def gate(*checks: Check, seed: str = "a", **more: object) -> Gate:
    return Gate(checks, SIZES, **{"alpha": 0.05, "order": order(seed, N), **more})


def run(asked: Gate, *, until: int = N, numbers: dict[str, float] | None = None) -> Outcome:
    while not asked.done and asked.n_scored < until:
        windows = asked.next_windows(8)
        asked.observe(windows, [POSITIONS[w] for w in windows])
    return asked.outcome(numbers)


def mean_check(ratio: float, **more: object) -> Check:
    return Check("mean", "kl", fail_above=KL / ratio, **more)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.3, "pass"), (0.7, "pass"), (1.5, "fail")])
def test_a_mean_check_stops_early(ratio: float, verdict: str) -> None:
    found = run(gate(mean_check(ratio)))
    assert found.verdict == verdict
    assert found.n_scored < N
    assert found.fraction == found.n_scored / N
    (check,) = found.checks
    assert check.interval is not None
    assert check.interval.low <= KL <= check.interval.high


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (Check("a", "same_top", fail_below=SAME_TOP - 0.1), "pass"),
        (Check("a", "same_top", fail_below=SAME_TOP + 0.05), "fail"),
        (Check("p", "kl_percentiles.p90", fail_above=0.5), "pass"),
        (Check("p", "kl_percentiles.p90", fail_above=0.12), "fail"),
        (Check("d", "kl", baseline="prod", max_increase=3 * INCREASE), "pass"),
        (Check("d", "kl", baseline="prod", max_increase=INCREASE / 2), "fail"),
    ],
)
def test_every_kind_of_check_comes_to_its_verdict(check: Check, verdict: str) -> None:
    found = run(gate(check))
    assert found.verdict == verdict
    assert found.n_scored < N
    assert set(gate(check).columns) <= set(POSITIONS[0])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["p99", "p90", "median", "p10"]), st.booleans())
def test_a_percentile_is_within_its_limit_exactly_if_the_tested_share_is(
    seed: int, name: str, ragged: bool
) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, 12) if ragged else np.full(12, 10)
    windows = [rng.exponential(1.0, size).round(1) for size in sizes]
    limit = float(rng.choice([0.1, 0.5, 1.0, 2.3, 4.0]))
    statistic = statistic_of(Check("p", f"kl_percentiles.{name}", fail_above=limit), sizes)
    read = np.array([statistic.read({"kl": window}) for window in windows])
    y = sizes * read / sizes.mean()
    assert (y <= statistic.bounds.high).all()
    q = {"p99": 0.99, "p90": 0.9, "median": 0.5, "p10": 0.1}[name]
    percentile = np.quantile(np.concatenate(windows), q, method="inverted_cdf")
    assert (y.mean() <= statistic.limit + 1e-12) == (percentile <= limit)


def test_window_values_mean_to_the_token_weighted_mean() -> None:
    """Independent of any window: the plain mean over all positions."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 30, 40)
    windows = [{"same_top": rng.random(size) < 0.7} for size in sizes]
    statistic = statistic_of(Check("a", "same_top", fail_below=0.6), sizes)
    y = sizes * np.array([statistic.read(window) for window in windows]) / sizes.mean()
    every = np.concatenate([window["same_top"] for window in windows])
    assert 1 - y.mean() == pytest.approx(every.mean())
    assert isinstance(statistic, Statistic)


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (Check("x", "kl"), "fail_above"),
        (Check("x", "kl", fail_above=0.0), "fail_above"),
        (Check("x", "kl", fail_above=float("nan")), "fail_above"),
        (Check("x", "kl", fail_above=1.0, fail_below=0.5), "fail_below"),
        (Check("x", "kl", fail_above=1.0, clip=1.0), "clip"),
        (Check("x", "same_top", fail_below=1.0), "fail_below"),
        (Check("x", "same_top", fail_below=0.9, fail_above=0.9), "fail_above"),
        (Check("x", "kl_percentiles.max", fail_above=1.0), "metric"),
        (Check("x", "kl", baseline="prod", max_increase=0.0), "max_increase"),
        (Check("x", "kl", max_increase=0.1, fail_above=1.0), "max_increase"),
        (Check("x", "same_top", baseline="prod", fail_below=0.9), "baseline"),
    ],
)
def test_checks_that_no_test_decides_are_refused(check: Check, field: str) -> None:
    with pytest.raises(BadCheck) as refused:
        gate(check)
    assert (refused.value.check, refused.value.field) == ("x", field)


def test_two_checks_of_one_name_are_refused() -> None:
    with pytest.raises(BadCheck) as refused:
        gate(mean_check(0.5), mean_check(0.9))
    assert refused.value.field == "id"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "pass"),
        (["pass", "warn"], "warn"),
        (["warn", "inconclusive", "pass"], "inconclusive"),
        (["inconclusive", "fail"], "fail"),
        (["fail", "not_measurable"], "not_measurable"),
        (["not_measurable", "incomparable", "fail"], "incomparable"),
    ],
)
def test_the_gravest_verdict_counts(verdicts: list[str], expected: str) -> None:
    assert overall(Verdict(name) for name in verdicts) == expected


def test_exit_codes() -> None:
    codes = {verdict.value: code for verdict, code in EXIT_CODES.items()}
    assert codes == {
        "pass": 0,
        "warn": 0,
        "fail": 1,
        "inconclusive": 3,
        "not_measurable": 4,
        "incomparable": 5,
    }
    for lenient in ("warn", "pass"):
        assert exit_code(Verdict.INCONCLUSIVE, on_inconclusive=lenient) == 0
        assert exit_code(Verdict.FAIL, on_inconclusive=lenient) == 1
        assert exit_code(Verdict.NOT_MEASURABLE, on_inconclusive=lenient) == 4


def test_spent_windows_are_inconclusive() -> None:
    for on_inconclusive, code in (("fail", 3), ("warn", 0), ("pass", 0)):
        asked = gate(mean_check(1.0), max_windows=40, on_inconclusive=on_inconclusive)
        found = run(asked)
        assert (found.verdict, found.exit_code, found.n_scored) == ("inconclusive", code, 40)


def test_noise_parity_and_provenance_are_refused_before_any_window() -> None:
    for conditions, verdict, code in (
        (Conditions(noise_floor=KL / 2), "not_measurable", 4),
        (Conditions(parity_failed=True), "not_measurable", 4),
        (Conditions(different=("corpus",)), "incomparable", 5),
        (Conditions(parity_failed=True, different=("corpus",)), "incomparable", 5),
    ):
        asked = gate(mean_check(0.7), conditions=conditions)
        assert len(asked.next_windows(8)) == 0
        found = asked.outcome()
        assert (found.verdict, found.exit_code, found.n_scored) == (verdict, code, 0)
    least = Conditions(noise_floor=KL / 0.7 / 3)
    assert gate(mean_check(0.7), conditions=least).next_windows(8).size == 8


def test_noise_of_kl_says_nothing_about_agreement() -> None:
    check = Check("a", "same_top", fail_below=SAME_TOP - 0.1)
    assert run(gate(check, conditions=Conditions(noise_floor=1.0))).verdict == "pass"


def test_a_warning_goes_by_the_value_and_costs_no_window() -> None:
    plain = run(gate(mean_check(0.5)))
    warned = run(gate(mean_check(0.5, warn_above=KL / 2)))
    unwarned = run(gate(mean_check(0.5, warn_above=KL * 1.5)))
    assert [found.verdict for found in (plain, warned, unwarned)] == ["pass", "warn", "pass"]
    assert len({found.n_scored for found in (plain, warned, unwarned)}) == 1
    assert warned.exit_code == 0
    agreement = Check("a", "same_top", fail_below=0.5, warn_below=SAME_TOP + 0.05)
    assert run(gate(agreement)).verdict == "warn"


def test_a_check_that_only_warns_never_fails_and_everything_is_scored_for_it() -> None:
    found = run(gate(Check("w", "kl", warn_above=KL / 2)))
    assert (found.verdict, found.n_scored) == ("warn", N)
    assert run(gate(Check("w", "kl", warn_above=KL * 2))).verdict == "pass"


def test_informational_checks_neither_count_nor_cost() -> None:
    alone = run(gate(mean_check(0.5)))
    hard = Check("info", "kl", fail_above=KL, informational=True)
    both = run(gate(mean_check(0.5), hard))
    assert (both.verdict, both.n_scored) == (alone.verdict, alone.n_scored)
    failing = Check("info", "kl", fail_above=KL / 3, informational=True)
    found = run(gate(mean_check(0.5), failing))
    assert [check.verdict for check in found.checks] == ["pass", "fail"]
    assert found.verdict == "pass"


def test_alpha_is_split_only_against_a_false_fail() -> None:
    others = [Check(f"c{i}", "same_top", fail_below=0.2) for i in range(4)]
    asked = gate(mean_check(0.7), *others)
    test = asked._tests["mean"]
    assert (test.alpha, test.alpha_fail) == (0.05, 0.01)


def test_one_failed_check_fails_whatever_the_others_say() -> None:
    found = run(gate(mean_check(0.5), Check("a", "same_top", fail_below=SAME_TOP + 0.05)))
    assert found.verdict == "fail"
    assert {check.id: check.verdict for check in found.checks} == {"mean": "pass", "a": "fail"}


def test_numbers_are_compared_as_they_are() -> None:
    law = Check("law", "law_residual", fail_above=2.0, warn_above=1.0)
    for value, verdict in ((0.5, "pass"), (1.5, "warn"), (2.0, "warn"), (2.1, "fail")):
        found = run(gate(mean_check(0.5), law), numbers={"law_residual": value})
        assert found.verdict == verdict
    assert run(gate(mean_check(0.5), law)).verdict == "not_measurable"
    assert gate(mean_check(0.5), law)._tests.keys() == {"mean"}


def test_a_number_of_the_whole_corpus_is_none_of_a_part() -> None:
    law = Check("law", "law_residual", fail_above=2.0)
    numbers = {"law_residual": 0.5}
    part = run(gate(mean_check(0.5), law, exhaustive=True, max_windows=40), numbers=numbers)
    assert (part.verdict, part.n_scored) == ("inconclusive", 40)
    assert {check.id: check.verdict for check in part.checks}["law"] == "inconclusive"
    whole = run(gate(mean_check(0.5), law, exhaustive=True), numbers=numbers)
    assert whole.fraction == 1
    assert {check.id: check.verdict for check in whole.checks}["law"] == "pass"


@pytest.mark.parametrize("pause", [8, 40, 104])
def test_a_resumed_gate_goes_on(pause: int) -> None:
    checks = (mean_check(0.9), Check("a", "same_top", fail_below=SAME_TOP - 0.1))
    expected = run(gate(*checks))
    first = gate(*checks)
    run(first, until=pause)
    second = gate(*checks)
    second.restore(json.loads(json.dumps(first.to_json())))
    assert second.n_scored == first.n_scored
    assert run(second) == expected
    with pytest.raises(ValueError, match="other checks"):
        gate(mean_check(0.9)).restore(first.to_json())


def test_the_outcome_is_plain_json() -> None:
    body = json.loads(json.dumps(run(gate(mean_check(0.5))).to_json()))
    assert body["verdict"] == "pass"
    assert body["checks"][0]["interval"]["scope"] == "this_corpus"


def test_differences_name_what_two_results_do_not_share() -> None:
    one = {"base": "a", "tokenizer": "b", "corpus": "c", "context": 128, "seed": 1}
    assert differences(one, {**one, "seed": 2}) == ()
    assert differences(one, {**one, "context": 64, "corpus": "d"}) == ("corpus", "context")


def test_a_share_is_at_most_one_and_a_floor_is_not_something_to_be_above() -> None:
    """The first windows in the order are the long ones: each weighs more than an average one."""
    sizes = np.where(np.arange(N) < N // 2, 20, 10)
    asked = Gate([Check("a", "same_top", fail_below=0.9)], sizes, alpha=0.05, order=np.arange(N))
    while not asked.done:
        windows = asked.next_windows(8)
        asked.observe(windows, [{"same_top": np.zeros(sizes[w])} for w in windows])
    (check,) = asked.outcome().checks
    assert check.verdict == "fail"
    assert "beyond the limit" in check.reason
    assert check.value == 0
    assert check.interval is not None
    assert 0 <= check.interval.low <= check.interval.high <= 1
