"""Window scores to put the gate to the test: real adapters' and synthetic ones."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.laws.betting import Population
from service.laws.decide import Bounds
from service.laws.quantities import Floats
from service.laws.sequential import CLIP, clipped_share

DATA = Path(__file__).parent / "data" / "gate_scores.npz"
PROVENANCE = DATA.with_suffix(".json")


@dataclass(frozen=True)
class Scores:
    """What one candidate's full pass found."""

    name: str
    values: Floats  # y_w = n_w kl_w / mean(n), nats per token (windows,)
    sizes: npt.NDArray[np.int64]
    control: Floats  # known of every window beforehand (windows, columns)
    bounds: Bounds | None = None
    """Where not those of a mean of KL, clipped at a number of limits."""
    kl: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kl", float(self.values.mean()))

    @property
    def population(self) -> Population:
        columns = [self.sizes / self.sizes.mean(), *self.control.T]
        return Population.of(len(self.values), np.column_stack(columns))


def real(names: list[str] | None = None, *, control: str = "base") -> list[Scores]:
    """Adapters on the tiny base over WikiText-103's test articles, by ascending KL.

    `control`: `base`, the base's own sums per window (entropy, loss, likeliest token); or an
    adapter's name, whose scores then come first.
    """
    held = np.load(DATA)
    adapters = json.loads(PROVENANCE.read_text())["adapters"]
    sizes = held["sizes"].astype(np.int64)
    columns = [held[name] for name in ("h_base", "nll_base", "top_p")]
    if control != "base":
        columns.insert(0, held[f"kl {control}"])
    return [
        Scores(
            name,
            held[f"kl {name}"].astype(np.float64) / sizes.mean(),
            sizes,
            np.column_stack(columns).astype(np.float64),
        )
        for name in sorted(adapters, key=lambda name: adapters[name]["kl"])
        if names is None or name in names
    ]


def others() -> list[Scores]:
    """The other kinds of check on the same windows: a percentile (the share of positions above
    what is p99 of that adapter), disagreement, and the increase over another adapter."""
    held = np.load(DATA)
    (scores,) = real(["r16-lr3e-3-s20"])
    (better,) = real(["r4-lr1e-3-s40"])
    sizes, mean = scores.sizes, scores.sizes.mean()
    whole = Bounds(0.0, float(sizes.max() / mean))
    above = held["above r16-lr3e-3-s20"] / mean
    unlike = (sizes - held["same_top r16-lr3e-3-s20"]) / mean
    change = scores.values - better.values
    high = CLIP * float(change.mean())
    both = Bounds(-high, high, clipped_share(CLIP), both=True)
    return [
        Scores("share of positions above p99", above, sizes, scores.control, whole),
        Scores("disagreement", unlike, sizes, scores.control, whole),
        Scores("increase over r4-lr1e-3-s40", change, sizes, scores.control, both),
    ]


def joined(scores: Scores, *, width: int = 4) -> Scores:
    """`width` consecutive windows of a document as one: a proxy for longer windows, since the
    later ones still see no more than their own context."""
    document = np.load(DATA)["document"]
    groups: list[npt.NDArray[np.int64]] = []
    for number in np.unique(document):
        places = np.flatnonzero(document == number)
        groups += [places[i : i + width] for i in range(0, len(places), width)]
    sizes = np.array([scores.sizes[group].sum() for group in groups])
    sums = np.array([scores.values[group].sum() for group in groups]) * scores.sizes.mean()
    control = np.array([scores.control[group].sum(axis=0) for group in groups])
    return Scores(f"{scores.name}, {width} windows as one", sums / sizes.mean(), sizes, control)


def synthetic(*, n: int = 1000, seed: int = 17) -> list[Scores]:
    """No control tells anything here. Scores with mean 1 before any clip."""
    rng = np.random.default_rng(seed)
    log_normal = np.exp(1.0 * rng.normal(size=n))
    pareto = rng.pareto(1.5, size=n) + 0.05
    few_high = np.where(rng.random(n) < 0.05, 8.0, 0.6) * np.exp(0.1 * rng.normal(size=n))
    documents = np.repeat(np.exp(0.8 * rng.normal(size=n // 40)), 40)
    clustered = documents * np.exp(0.2 * rng.normal(size=len(documents)))
    cases = {
        "log-normal, sd of log 1": log_normal,
        "Pareto, index 1.5": pareto,
        "bimodal, 5 % thirteen times as high": few_high,
        "document-clustered, sd of log 0.8": clustered,
    }
    return [
        Scores(name, y / y.mean(), np.full(len(y), 127), np.zeros((len(y), 0)))
        for name, y in cases.items()
    ]
