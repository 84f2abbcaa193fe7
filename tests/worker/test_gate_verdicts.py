"""Every verdict out of a real run of a real tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import AdapterUnreadable
from service.schemas.gate import GateResult
from service.schemas.result import Result
from service.schemas.spec import GateSpec
from tests.worker.candidates_made import make_lora, make_model
from tests.worker.gating import Place, check, kl
from worker.cache import Cache
from worker.run import execute


@pytest.fixture(scope="module")
def place(tiny_base: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("gate"), tiny_base, shared_data)


@pytest.fixture(scope="module")
def full(place: Place) -> Result:
    return place.measure("mild", "strong")


@pytest.fixture(scope="module")
def mild(full: Result) -> float:
    """Its KL by the full pass."""
    return full.checkpoints[0].forgetting.kl.value


def test_a_candidate_that_forgets_too_much_fails_within_the_first_batch(
    place: Place, full: Result, mild: float
) -> None:
    result = place.gate(place.spec(kl(mild / 2)), "fail")
    assert (result.verdict, result.exit_code) == ("fail", 1)
    assert result.n_scored == 16
    assert result.n_windows == full.n_windows
    [found] = result.checks
    assert (found.tested, found.verdict, found.limit) == ("sequentially", "fail", mild / 2)
    assert found.interval is not None
    assert found.interval.low >= mild / 2
    assert result.cost.base_forward_tokens == 0
    assert result.cost.tuned_forward_tokens <= 16 * 128
    left = full.cost.tuned_forward_tokens / 2 - result.cost.tuned_forward_tokens
    assert result.cost.tokens_saved == left
    assert result.cost.seconds_saved is not None
    assert result.cost.seconds.keys() == {
        "validating",
        "loading",
        "scoring_base",
        "scoring_tuned",
    }
    assert len(result.worst_tokens) == 30
    assert result.worst_tokens[0].kl >= result.worst_tokens[-1].kl > found.limit


def test_agreement_passes_early_and_a_warning_goes_by_the_value(place: Place, full: Result) -> None:
    agrees = {"id": "top", "metric": "same_top", "fail_below": 0.6}
    result = place.gate(place.spec(agrees, kl(9, informational=True)), "pass")
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert 0 < result.fraction < 1
    found = check(result, "top")
    assert found.value == pytest.approx(full.checkpoints[0].forgetting.same_top.value, abs=0.03)
    assert found.estimand == pytest.approx(1 - found.value, abs=0.02)
    assert found.estimand_limit == pytest.approx(0.4)
    assert check(result, "kl").tested == "not"
    warned = place.gate(place.spec({**agrees, "warn_below": 0.99}), "warn")
    assert (warned.verdict, warned.exit_code) == ("warn", 0)


def test_everything_scored_says_what_the_full_pass_says(
    place: Place, full: Result, mild: float
) -> None:
    """One limit just above and one just below the true value, every metric beside them."""
    means = ("kl", "ce_soft", "ce_hard", "nll_tuned")
    forgot = full.checkpoints[0].forgetting
    for name, limit, verdict in (("over", mild * 1.0001, "pass"), ("under", mild * 0.9999, "fail")):
        others: list[dict[str, Any]] = [
            {"id": m, "metric": m, "fail_above": 9, "informational": True} for m in means[1:]
        ]
        result = place.gate(place.spec(kl(limit), *others, sequential=False), name)
        assert result.verdict == verdict
        assert result.fraction == 1
        for metric in means:
            value = getattr(forgot, metric).value
            assert check(result, metric).value == pytest.approx(value, abs=1e-6)
        tested = check(result, "kl")
        assert tested.tested == "on every window"
        assert tested.estimand == pytest.approx(mild, abs=1e-6)
        assert result.cost.tokens_saved == 0


def test_a_sequence_that_is_exhausted_has_the_verdict_of_the_full_pass(
    place: Place, mild: float
) -> None:
    """So near the limit no test decides, and the last window makes it exact."""
    result = place.gate(place.spec(kl(mild * 1.0001)), "near")
    assert (result.verdict, result.fraction) == ("pass", 1)
    assert check(result, "kl").reason == "every window scored"


def test_windows_spent_without_a_decision_are_inconclusive(place: Place, mild: float) -> None:
    spec = place.spec(kl(mild * 1.01), max_windows=40)
    result = place.gate(spec, "spent")
    assert (result.verdict, result.exit_code, result.n_scored) == ("inconclusive", 3, 40)
    lenient = place.spec(kl(mild * 1.01), max_windows=40, on_inconclusive="warn")
    assert place.gate(lenient, "lenient").exit_code == 0


def test_a_limit_within_the_noise_is_not_measurable(place: Place, mild: float) -> None:
    """The base's pass, but noisy: no window is scored to find out that the limit is beneath it."""
    spec = place.spec(kl(mild / 2))
    noisy = place.settings.model_copy(update={"cache_dir": place.root / "noisy"})
    for folder in place.settings.cache.glob("[!.]*"):
        # The manifest's first line vouches for the rest.
        key = json.loads((folder / "manifest.json").read_bytes()[65:])["key"]
        entry = Cache(place.settings.cache, max_bytes=10**9).get(key)
        assert entry is not None
        with Cache(noisy.cache, max_bytes=10**9).write(key) as writer:
            for name, array in entry.arrays.items():
                writer.array(name, array.shape, array.dtype)[:] = array
            writer.commit({**entry.facts, "kl": mild / 5})
    result = execute(spec, place.root / "noisily", lambda event: None, settings=noisy)
    assert isinstance(result, GateResult)
    assert (result.verdict, result.exit_code, result.n_scored) == ("not_measurable", 4, 0)
    assert result.noise_floor is not None
    assert result.noise_floor.kl == mild / 5
    assert (result.checks[0].value, result.checks[0].tested) == (None, "not")
    assert (result.cost.tuned_forward_tokens, result.cost.seconds_saved) == (0, None)
    assert place.gate(spec, "quietly").verdict == "fail"


def test_limits_found_elsewhere_are_incomparable_and_nothing_is_scored(
    place: Place, full: Result, mild: float
) -> None:
    here = {"corpus": full.provenance.corpus, "context": 128}
    result = place.gate(place.spec(kl(mild / 2), measured_on=here), "comparable")
    assert result.verdict == "fail"
    other = place.spec(kl(mild / 2), measured_on={**here, "corpus": "sha256:other"})
    result = place.gate(other, "incomparable")
    assert (result.verdict, result.exit_code, result.different) == ("incomparable", 5, ["corpus"])
    assert (result.n_scored, result.noise_floor) == (0, None)
    assert result.cost.base_forward_tokens == result.cost.tuned_forward_tokens == 0


def test_a_baseline_is_compared_window_by_window(place: Place, full: Result) -> None:
    more = {"id": "drift", "metric": "kl", "baseline": "prod", "max_increase": 0.001}
    baselines = {"prod": {"path": "mild"}}
    spec = place.spec(more, adapter="strong", baselines=baselines, sequential=False)
    result = place.gate(spec, "drift")
    mild, strong = (one.forgetting.kl.value for one in full.checkpoints)
    found = check(result, "drift")
    assert (found.verdict, found.baseline) == ("fail", "prod")
    assert found.value == pytest.approx(strong - mild, abs=1e-6)
    assert result.cost.tuned_forward_tokens == full.cost.tuned_forward_tokens


def test_a_full_model_and_both_directions(place: Place, tiny_base: Path) -> None:
    make_model(tiny_base, place.root / "models" / "merged", size=0.005)
    back = {"id": "back", "metric": "kl_reverse", "fail_above": 1e-4}
    tail = {"id": "tail", "metric": "kl_percentiles.p99", "fail_above": 1e-4}
    result = place.gate(place.spec(back, tail, adapter="merged"), "merged")
    assert result.verdict == "fail"
    assert result.candidate.rank is None
    assert check(result, "tail").unit == "nats"
    assert (check(result, "tail").value or 0) > (check(result, "back").value or 0) > 1e-4


def test_the_spec_field_of_a_baseline_that_does_not_fit_is_named(
    place: Place, random_base: Path
) -> None:
    make_lora(random_base, place.root / "models" / "alien", size=0.1)
    more = {"id": "drift", "metric": "kl", "baseline": "prod", "max_increase": 0.001}
    spec = place.spec(more, baselines={"prod": {"path": "alien"}})
    with pytest.raises(AdapterUnreadable) as error:
        place.gate(spec, "alien")
    assert error.value.param == "policy.baselines.prod"


def test_either_side_of_the_base_gives_the_same_numbers(place: Place, mild: float) -> None:
    warm = place.gate(place.spec(kl(mild / 2)), "warm")
    cold = place.gate(place.spec(kl(mild / 2)), "cold", cold=True)
    assert (warm.order, warm.n_scored) == (cold.order, cold.n_scored)
    for one, other in zip(warm.worst_tokens, cold.worst_tokens, strict=True):
        assert one.kl == pytest.approx(other.kl, abs=1e-5)
    assert warm.checks[0].value == pytest.approx(cold.checks[0].value, abs=1e-7)
    assert (warm.provenance.route, cold.provenance.route) == ("identity", "logits")
    assert cold.noise_floor is not None
    noise = cold.cost.base_forward_tokens - cold.cost.tuned_forward_tokens
    assert 0 < noise <= 16 * 128


@pytest.mark.parametrize("cold", [False, True])
def test_an_adapter_of_zeros_forgot_nothing(
    place: Place, full: Result, tiny_base: Path, cold: bool
) -> None:
    name = f"zero-{cold}"
    make_lora(tiny_base, place.root / "models" / name, size=0.0)
    spec = place.spec(kl(1e-5), adapter=name, max_windows=32)
    result: GateResult = place.gate(spec, name, cold=cold)
    worst = max(abs(token.kl) for token in result.worst_tokens)
    value = result.checks[0].value
    assert value is not None
    if cold:
        assert worst == value == 0
    assert abs(value) <= max(abs(result.noise_floor.kl), 1e-7)  # type: ignore[union-attr]


def test_the_order_hangs_on_the_corpus_and_not_on_who_named_it(place: Place, mild: float) -> None:
    """Else the same question could be asked again, for a luckier order, by another path."""
    text = (place.root / "articles.txt").read_text()
    (place.root / "same.txt").write_text(text)
    (place.root / "other.txt").write_text(text[: len(text) // 2])
    orders = {}
    for name in ("articles.txt", "same.txt", "other.txt"):
        body = place.spec(kl(mild / 2)).model_dump()
        body["evaluation"]["corpus"] = body["policy"]["corpus"] = name
        orders[name] = place.gate(GateSpec.model_validate(body), f"order-{name}").order
    plain = place.gate(place.spec(kl(mild / 2)), "order-plain").order
    assert orders["articles.txt"] == orders["same.txt"] == plain != orders["other.txt"]
