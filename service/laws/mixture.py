"""Do the runs fall into two families that neither rank nor chance explains?

Each run gets a height and a slope along ln N (their curvature shared). What a parabola in ln P
leaves of them is split into the two most separate groups of at least two runs. How separate
chance alone makes them is simulated from runs of one normal family put through the same parabola.
Two recipes that never share a rank cannot be told from an effect of the rank.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.laws.measured import Integers, Mask, Measured
from service.laws.quantities import Floats, TooFewPoints

MIN_RUNS = 6
LEVEL = 0.005
"""Of each of the two tests."""
LEAST_GAP = 0.1
"""Gap between the families, as a share of the forgetting's spread, that is worth a word."""
N_SIMULATED = 1999


@dataclass(frozen=True)
class Families:
    """The most separate split of the runs by one of their features."""

    feature: Literal["height", "slope"]
    p: float
    """Chance of a split as clean from one normal family."""
    sd_nats: float
    """Of the runs about a parabola in ln P, degrees of freedom counted."""
    gap_nats: float
    """Between the families' means. Both features are in nats: a slope is the change over half
    the range of ln N."""
    second: tuple[str, ...]
    """Runs of the smaller family."""
    two: bool


def families(known: Measured, *, seed: int = 17) -> tuple[Families, ...]:
    """Height and slope of the runs, each split in two. Raises TooFewPoints below 6 runs."""
    runs = known.runs
    if len(runs) < MIN_RUNS:
        raise TooFewPoints(f"{len(runs)} runs; two families need {MIN_RUNS}", axis="points")
    log_params = np.array([known.log_params[known.run == run][0] for run in runs])
    p = log_params - log_params.mean()
    basis, size, _ = np.linalg.svd(np.stack([np.ones_like(p), p, p**2], axis=1), False)
    basis = basis[:, size > 1e-9 * size[0]]
    if len(runs) - basis.shape[1] < 3:
        raise TooFewPoints(f"{len(runs)} runs leave too little beside ln P", axis="points")
    if np.ptp(known.value) <= 1e-9 * np.abs(known.value).max():
        raise TooFewPoints("forgetting does not vary", axis=known.metric)
    rng = np.random.default_rng(seed)
    chance = _beyond(basis, rng.normal(size=(N_SIMULATED, len(runs))))
    by_chance = _splits(chance)[0]
    features = _features(known)
    found = []
    for feature, column in features.items():
        left = _beyond(basis, column[None, :])[0]
        shares, n_below = _splits(left[None, :])
        share, second = shares[0], _smaller_part(left, int(n_below[0]))
        gap = abs(float(left[second].mean() - left[~second].mean()))
        p_value = (1 + int(np.sum(by_chance <= share))) / (1 + N_SIMULATED)
        found.append(
            Families(
                feature=feature,
                p=p_value,
                sd_nats=float(np.sqrt(left @ left / (len(runs) - basis.shape[1]))),
                gap_nats=gap,
                second=tuple(run for run, chosen in zip(runs, second, strict=True) if chosen),
                two=p_value < LEVEL and gap > LEAST_GAP * float(np.ptp(known.value)),
            )
        )
    return tuple(found)


def _features(known: Measured) -> dict[Literal["height", "slope"], Floats]:
    """Height and slope of each run from one least-squares fit with a shared curvature.

    The slope is left out where some run has fewer than 3 points.
    """
    index = known.run_index
    one_hot = np.equal.outer(index, np.arange(len(known.runs))).astype(np.float64)
    n = known.log_step - known.log_step.mean()
    n = n / max(float(np.ptp(n)) / 2.0, 1e-300)
    bent = (n**2)[:, None]
    if np.bincount(index).min() < 3 or np.ptp(n) == 0.0:
        design = np.hstack([one_hot, n[:, None], bent])
        found = np.linalg.lstsq(design, known.value, rcond=1e-9)[0]
        return {"height": found[: len(known.runs)]}
    design = np.hstack([one_hot, one_hot * n[:, None], bent])
    found = np.linalg.lstsq(design, known.value, rcond=1e-9)[0]
    return {
        "height": found[: len(known.runs)],
        "slope": found[len(known.runs) : 2 * len(known.runs)],
    }


def _beyond(basis: Floats, rows: Floats) -> Floats:
    """Rows (s, runs) less their part in the basis (runs, q)."""
    return np.asarray(rows - rows @ basis @ basis.T)


def _splits(rows: Floats) -> tuple[Floats, Integers]:
    """Per row (s, runs): share of the squares that the cleanest split in two leaves, and how many
    of the smallest values its lower part takes."""
    ordered = np.sort(rows, axis=1)
    ordered = ordered - ordered.mean(axis=1, keepdims=True)
    count = rows.shape[1]
    sizes = np.arange(2, count - 1)
    below = np.cumsum(ordered, axis=1)[:, sizes - 1]
    # The overall sum is zero, so the sums of the two parts differ in sign only.
    explained = below**2 * (1.0 / sizes + 1.0 / (count - sizes))
    whole = (ordered**2).sum(axis=1)
    share = 1.0 - explained.max(axis=1) / np.where(whole > 0.0, whole, 1.0)
    return np.asarray(share), np.asarray(sizes[explained.argmax(axis=1)], dtype=np.intp)


def _smaller_part(column: Floats, n_below: int) -> Mask:
    """Members of the smaller of the two parts of a split."""
    members = np.zeros(len(column), dtype=np.bool_)
    members[np.argsort(column, kind="stable")[:n_below]] = True
    return ~members if 2 * n_below > len(column) else members
