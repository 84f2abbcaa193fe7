"""The sufficiency test: its size and power by simulation, and its p-value drawn the slow way."""

import numpy as np
import pytest
from scipy.stats import binom

from service.laws import Point, TooFewPoints
from service.laws.forgetting import LLAMA_2_7B_PARAMS_PER_RANK, OPENORCA, PAPER_RANKS
from service.laws.measured import Measured, columns
from service.laws.mixture import families
from service.laws.sufficiency import _add, _signs, _spline, holm, smoothed, sufficiency
from tests.unit.judged_points import STEPS, paper, study, two_slopes

N_STUDIES = 300


def on_a_curve(
    seed: int, *, by_rank: float = 0.0, by_rate: float = 0.0, jitter_sd: float = 0.004
) -> Measured:
    """Two runs of each of six ranks on one curve of L_ft: an offset per run, errors that drift
    along it (autocorrelation 0.7), and `by_rank` nats from the least to the largest rank.
    `jitter_sd`: of the measured L_ft about the one that matters."""
    rng = np.random.default_rng(seed)
    points = []
    for rank in PAPER_RANKS:
        params = rank * LLAMA_2_7B_PARAMS_PER_RANK
        for number in range(2):
            offset, height, drift = rng.normal() * 0.01, rng.normal() * 0.01, 0.0
            for step in STEPS:
                drift = 0.7 * drift + rng.normal() * 0.004
                ft_loss = OPENORCA.ft_loss(params, step) + height
                value = 0.8 - 1.7 * (ft_loss - 0.7) + 6.0 * (ft_loss - 0.7) ** 2 + offset + drift
                value += by_rank * np.log(rank / 8) / np.log(32) + by_rate * number
                points.append(
                    Point(
                        run=f"{rank}-{number}",
                        trainable_params=params,
                        step=step,
                        ft_loss=ft_loss + rng.normal() * jitter_sd,
                        ce_soft=value,
                        learning_rate=(1e-4, 3e-4)[number],
                    )
                )
    return columns(points, "ce_soft")


def test_false_positives_come_at_the_nominal_rate() -> None:
    found = [sufficiency(on_a_curve(seed), n_bootstrap=199) for seed in range(N_STUDIES)]
    low, high = binom.ppf([0.001, 0.999], N_STUDIES, 0.05)
    for index, variable in enumerate(("trainable_params", "step", "learning_rate")):
        rejected = sum(one.effects[index].p <= 0.05 for one in found)
        assert found[0].effects[index].variable == variable
        assert low <= rejected <= high, variable
    assert sum(not one.sufficient for one in found) <= high


def test_jitter_of_ft_loss_does_not_refute_the_claim() -> None:
    """Without the smoothing, P and N stand in for the loss that the jitter hides."""
    studies = [on_a_curve(seed, jitter_sd=0.01) for seed in range(100)]
    found = [sufficiency(known, n_bootstrap=199).effects[1].p for known in studies]
    signs = _signs(12, 199, seed=17)
    raw = [_add(known, _spline(known.ft_loss), np.log(known.step), signs).p for known in studies]
    assert sum(p <= 0.05 for p in raw) >= 30
    assert sum(p <= 0.05 for p in found) <= 15


def test_a_planted_effect_is_found() -> None:
    by_rank = [sufficiency(on_a_curve(s, by_rank=0.06), n_bootstrap=399) for s in range(20)]
    assert sum(one.effects[0].p < 0.05 for one in by_rank) >= 18
    nats = np.mean([one.effects[0].nats for one in by_rank])
    assert nats == pytest.approx(0.06, rel=0.15)
    by_rate = [sufficiency(on_a_curve(s, by_rate=0.04), n_bootstrap=399) for s in range(20)]
    assert sum(one.effects[2].p < 0.05 for one in by_rate) >= 18
    assert np.mean([one.effects[2].nats for one in by_rate]) == pytest.approx(0.04, rel=0.15)


def test_the_sentence_tells_size_and_p() -> None:
    found = sufficiency(on_a_curve(0, by_rank=0.1))
    assert not found.sufficient
    assert "largest trainable_params" in found.sentence
    effect = found.effects[0]
    assert effect.nats_ci95[0] < effect.nats < effect.nats_ci95[1]
    assert f"{effect.nats:+.3g} nats" in found.sentence


def test_the_same_p_drawn_the_slow_way() -> None:
    """Ordinary regressions on every bootstrap sample, in place of the algebra of runs."""
    known = on_a_curve(4, by_rank=0.02)
    smooth, column = _spline(smoothed(known)), np.log(known.params)
    full = np.column_stack([smooth, column])

    def statistic(value: np.typing.NDArray[np.float64]) -> float:
        slope = np.linalg.lstsq(full, value, rcond=None)[0]
        miss = value - full @ slope
        bread = np.linalg.inv(full.T @ full)
        meat = sum(
            np.outer(s, s)
            for s in (full[known.run == run].T @ miss[known.run == run] for run in known.runs)
        )
        return float(slope[-1] / np.sqrt((bread @ meat @ bread)[-1, -1]))

    null = smooth @ np.linalg.lstsq(smooth, known.value, rcond=None)[0]
    signs = _signs(len(known.runs), 299, seed=17)
    drawn = [statistic(null + row[known.run_index] * (known.value - null)) for row in signs]
    extreme = np.sum(np.abs(drawn) >= abs(statistic(known.value)))
    found = sufficiency(known, seed=17, n_bootstrap=299)
    assert found.effects[0].p == pytest.approx((1 + extreme) / 300)


def test_the_spline_is_smooth_and_straight_outside_its_knots() -> None:
    x = np.linspace(0.0, 1.0, 1001)
    basis = _spline(x)
    assert basis.shape == (1001, 4)
    second = np.diff(basis, n=2, axis=0)
    assert np.abs(second[:45]).max() < 1e-12
    assert np.abs(second[-45:]).max() < 1e-12
    assert np.abs(np.diff(second, axis=0)).max() < 1e-6
    assert np.linalg.matrix_rank(basis) == 4


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_too_little_to_test() -> None:
    known = on_a_curve(0)
    with pytest.raises(TooFewPoints, match="4 runs"):
        sufficiency(known.part(np.isin(known.run, ["8-0", "16-0", "32-0", "64-0"])))
    one_rate = sufficiency(known.part(np.char.endswith(known.run, "-0")))
    assert one_rate.untested == {"learning_rate": "learning_rate does not vary"}


def test_two_families_come_rarely_by_chance_and_are_found_where_they_are() -> None:
    alone = [columns(study(paper, seed=seed), "ce_soft") for seed in range(60)]
    cried = sum(any(one.p < 0.05 for one in families(known)) for known in alone)
    assert cried <= binom.ppf(0.999, 60, 0.1)
    assert not any(one.two for known in alone for one in families(known))
    mixed = [columns(study(two_slopes, seed=seed), "ce_soft") for seed in range(10)]
    assert all(any(one.two for one in families(known)) for known in mixed)
