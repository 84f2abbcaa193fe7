"""Where the base's side of a gate comes from: its whole pass, cached or made for a gate that scores
everything anyway; else only the windows that are scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.digest import json_digest
from service.schemas.result import NoiseFloor
from worker.cache import Cache
from worker.divergence import Route
from worker.grafts import Grafts
from worker.measure import MIN_IDENTITY_POSITIONS
from worker.pace import Pace
from worker.question import Question
from worker.score import OnWindows, cache_key, score_base
from worker.windows import Windows


@dataclass(frozen=True)
class BaseSide:
    """`rows` is null where the base reads window by window."""

    rows: Mapping[str, NDArray[Any]] | None
    route: Route
    """Without a pass errors cancel best where both logits are made, so they are."""
    noise: NoiseFloor | None = None
    """Of a pass; else it is still to be measured."""
    forward_tokens: int = 0

    def control(self, windows: Windows) -> NDArray[np.float64] | None:
        """What a pass tells of every window beforehand: sums of entropy, loss and the likeliest
        token's probability (windows, 3)."""
        if self.rows is None:
            return None
        names = ("h_base", "nll_base", "top_p")
        window = windows.position_window
        return np.column_stack([np.bincount(window, self.rows[n], len(windows)) for n in names])


def base_sides(question: Question, grafts: Grafts, cache: Cache, pace: Pace) -> list[BaseSide]:
    """Those that are there, the best one first; the last needs no pass."""
    found = []
    for route in _routes(question, grafts):
        entry = cache.get(_key(question, route, pace))
        if entry is not None:
            facts = entry.facts
            noise = NoiseFloor(**{name: facts[name] for name in NoiseFloor.model_fields})
            found.append(BaseSide(entry.arrays, route, noise))
    return [*found, BaseSide(None, "logits")]


def whole_side(
    question: Question,
    grafts: Grafts,
    cache: Cache,
    pace: Pace,
    on_windows: OnWindows,
    warn: Any,
    route: Route | None = None,
) -> BaseSide:
    """The pass, made now, for this gate and whoever comes after it; by its first route unless
    another is said."""
    made = score_base(
        question.base,
        question.windows,
        corpus_digest=question.corpus.digest,
        route=route or _routes(question, grafts)[0],
        cache=cache,
        on_windows=on_windows,
        pace=pace,
        warn=warn,
    )
    noise = NoiseFloor(
        kl=made.noise_kl, max_abs=made.noise_max_abs, n_positions=made.noise_positions
    )
    return BaseSide(made.rows, made.route, noise, made.forward_tokens)


def lost_route(question: Question, grafts: Grafts, pace: Pace, begun: str | None) -> Route | None:
    """Of the pass that a gate was begun with (digest of its `state_key`), whether it is there yet
    or was evicted."""
    for route in _routes(question, grafts):
        if json_digest(state_key(question, BaseSide({}, route), pace)) == begun:
            return route
    return None


def state_key(question: Question, side: BaseSide, pace: Pace) -> dict[str, Any]:
    """What the numbers of a gate and the bets on them hang on."""
    asked = {"question": question.digest, "reverse": question.reverse}
    return {**asked, "cached": side.rows is not None, "rows": _key(question, side.route, pace)}


def _routes(question: Question, grafts: Grafts) -> list[Route]:
    """As `worker.measure.choose_route` would choose; a pass of the other serves as well."""
    many = question.windows.n_positions >= MIN_IDENTITY_POSITIONS
    if grafts.share_head and many and not question.reverse:
        return ["identity", "logits"]
    return ["logits"]


def _key(question: Question, route: Route, pace: Pace) -> dict[str, Any]:
    return cache_key(
        question.base,
        question.windows,
        corpus_digest=question.corpus.digest,
        route=route,
        pace=pace,
    )
