"""One check against its limit, decided from as few windows as its error allows.

What is tested is the mean over windows of y_w = n_w v_w / mean(n), v_w the window's mean over
its n_w scored positions: it *is* the mean over all positions. Values are nats per token for KL,
shares for percentiles and agreement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.laws.betting import Bets, Population
from service.laws.decide import Bounds, Evidence, estimand
from service.laws.quantities import Floats
from service.laws.verdict import Verdict

Indices = npt.NDArray[np.int64]

CLIP = 10.0
"""Default bound on y_w, in limits."""
CLIPPED_PART = 0.1
"""What all clipped windows may add to the clipped mean, in limits."""
EQUAL = 1e-12
"""Relative: a value this near the limit equals it, and passes."""
GRID = np.unique(
    np.concatenate(
        [np.geomspace(0.02, 0.5, 81), np.geomspace(0.5, 2, 281), [1.0], np.geomspace(2, 20, 58)]
    )
)
"""Limits that an interval tries, in distances of the limit from the lower bound."""


def clipped_share(clip: float) -> float:
    """Which share of the windows may be clipped at `clip` limits: 1 % at 10, 2.5 % at 4. However
    high they are, all of them together are then worth CLIPPED_PART of the limit."""
    return min(CLIPPED_PART / clip, 1.0)


@dataclass(frozen=True)
class Interval:
    """Of this corpus's mean: each end alone is wrong with probability at most alpha."""

    low: float
    high: float
    scope: str = "this_corpus"


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    """pass, fail or inconclusive."""
    value: float
    """Mean of what was scored, clipped; of an exhausted corpus the estimand itself."""
    n_scored: int
    n_windows: int
    n_clipped: int
    reason: str

    @property
    def fraction(self) -> float:
        """Share of the windows that were scored."""
        return self.n_scored / self.n_windows


class Sequential:
    """Feed `observe` with what `next_windows` names, until it gives a decision.

    `sizes` are the scored positions of every window; `order` the permutation they are scored
    in (`service.laws.order`); `control` any numbers known of all windows beforehand (windows,
    columns): the base's own scores, or another adapter's. A pass is wrong with probability at
    most `alpha`, a fail with at most `alpha_fail` (default alpha).
    """

    def __init__(
        self,
        sizes: Sequence[int] | npt.NDArray[Any],
        *,
        limit: float,
        alpha: float,
        order: Sequence[int] | npt.NDArray[Any],
        bounds: Bounds | None = None,
        clip: float | None = None,
        max_clipped_share: float | None = None,
        control: Floats | None = None,
        alpha_fail: float | None = None,
        max_windows: int | None = None,
        noise_floor: float = 0.0,
    ) -> None:
        self.order = np.asarray(order, np.int64)
        n = len(sizes)
        if not np.array_equal(np.sort(self.order), np.arange(n)):
            raise ValueError(f"the order is no permutation of the {n} windows")
        if bounds is None:
            high = CLIP * limit if clip is None else clip
            _require_between(0.0, limit, high)
            share = clipped_share(high / limit) if max_clipped_share is None else max_clipped_share
            bounds = Bounds(0.0, high, share)
        _require_between(bounds.low, limit, bounds.high)
        if not 0 < alpha < 0.5 or not 0 < (alpha_fail or alpha) < 0.5:
            raise ValueError("alpha must lie between 0 and 0.5")
        self.limit, self.bounds, self.alpha = limit, bounds, alpha
        self.alpha_fail = alpha_fail or alpha
        self.max_windows = n if max_windows is None else min(max_windows, n)
        self.noise_floor = noise_floor
        # Shares that nothing clips are one less the other share: rounded as 1 is, however small.
        whole = bounds.max_clipped_share is None
        self._scale = bounds.high if whole else max(abs(limit), limit - bounds.low)
        self.weights = np.asarray(sizes, np.float64) / np.mean(sizes)
        columns = self.weights[:, None]
        if control is not None:
            columns = np.column_stack([columns, np.asarray(control, np.float64)])
        self._population = Population.of(n, columns)
        self._batches: list[list[float]] = []
        self._evidence = self._fresh(np.array([limit]))
        self.decision: Decision | None = None

    @property
    def n_windows(self) -> int:
        return len(self.order)

    @property
    def n_scored(self) -> int:
        return sum(len(batch) for batch in self._batches)

    @property
    def fraction(self) -> float:
        return self.n_scored / self.n_windows

    @property
    def n_clipped(self) -> int:
        return int(self._evidence.n_clipped[0])

    def next_windows(self, count: int) -> Indices:
        """The windows to score next, at most `count`; none after `max_windows`."""
        return self.order[self.n_scored : min(self.n_scored + count, self.max_windows)]

    def observe(
        self, windows: Sequence[int] | Indices, values: Sequence[float] | Floats
    ) -> Decision | None:
        """Take a batch: `values` are the means over each window's scored positions.

        Raises ValueError for windows that are not the next in the order. After a decision
        further windows sharpen the interval; the last one makes the decision exact.
        """
        windows, values = np.asarray(windows, np.int64), np.asarray(values, np.float64)
        if len(windows) == 0 or not np.array_equal(windows, self.next_windows(len(windows))):
            raise ValueError("these windows are not the next in the order")
        if values.shape != windows.shape or not np.isfinite(values).all():
            raise ValueError(f"{len(windows)} windows need as many finite values")
        controls = self._population.controls[windows]
        self._evidence.observe((values * self.weights[windows])[None], controls[None])
        self._batches.append(values.tolist())
        if self.decision is None or self.n_scored == self.n_windows:
            self.decision = self._decide()
        return self.decision

    @property
    def value(self) -> float:
        """Mean of the clipped values so far; of an exhausted corpus the estimand itself."""
        if not self._batches:
            return float("nan")
        windows, y = self._seen()
        if len(y) < self.n_windows:
            return float(np.clip(y, self.bounds.low, self.bounds.high).mean())
        in_order = np.empty_like(y)
        in_order[windows] = y
        return estimand(in_order, self.bounds)

    def _seen(self) -> tuple[Indices, Floats]:
        windows = self.order[: self.n_scored]
        return windows, np.concatenate(self._batches) * self.weights[windows]

    def _fresh(self, limits: Floats) -> Evidence:
        return Evidence(self._population, limit=limits, bounds=[self.bounds] * len(limits))

    def _decide(self) -> Decision | None:
        if self.n_scored == self.n_windows:
            distance = self.value - self.limit
            if abs(distance) < self.noise_floor:
                return self._end(Verdict.INCONCLUSIVE, "within the noise floor of the limit")
            above = distance > EQUAL * self._scale
            return self._end(Verdict.FAIL if above else Verdict.PASS, "every window scored")
        if self._evidence.failed(self.alpha_fail)[0]:
            return self._end(Verdict.FAIL, f"beyond the limit at alpha {self.alpha_fail:g}")
        if self._evidence.passed(self.alpha)[0]:
            return self._end(Verdict.PASS, f"within the limit at alpha {self.alpha:g}")
        if self.n_scored >= self.max_windows:
            return self._end(Verdict.INCONCLUSIVE, f"max_windows {self.max_windows} spent")
        return None

    def _end(self, verdict: Verdict, reason: str) -> Decision:
        return Decision(verdict, self.value, self.n_scored, self.n_windows, self.n_clipped, reason)

    def interval(self) -> Interval:
        """All means of this corpus's clipped values that the windows so far do not reject.

        Every limit of a fixed grid is tested as the limit was; the ends are the outermost of an
        unbroken run of rejections. The end towards the limit never contradicts the decision.
        """
        if self.n_scored == self.n_windows:
            return Interval(self.value, self.value)
        low, high = self.bounds.low, self.bounds.high
        limits = low + (self.limit - low) * GRID
        limits = limits[limits < high]
        bets = Bets(
            self._population,
            limit=limits,
            low=np.full(len(limits), low),
            high=np.full(len(limits), high),
        )
        start = 0
        for batch in self._batches:
            windows = self.order[start : start + len(batch)]
            y = np.clip(np.array(batch) * self.weights[windows], low, high)
            shape = (len(limits), len(batch))
            controls = np.broadcast_to(
                self._population.controls[windows], (*shape, self._population.controls.shape[1])
            )
            bets.observe(np.broadcast_to(y, shape), controls)
            start += len(batch)
        above = bets.greater >= -np.log(self.alpha_fail)
        below = bets.less >= -np.log(self.alpha)
        n_above = int(np.argmin(above)) if not above.all() else len(limits)
        n_below = int(np.argmin(below[::-1])) if not below.all() else len(limits)
        ends = [
            float(limits[n_above - 1]) if n_above else low,
            float(limits[-n_below]) if n_below else high,
        ]
        if self.decision is not None and self.decision.verdict is Verdict.FAIL:
            ends[0] = max(ends[0], self.limit)
        if self.decision is not None and self.decision.verdict is Verdict.PASS:
            ends[1] = min(ends[1], self.limit)
        return Interval(min(ends[0], ends[1]), max(ends))

    def to_json(self) -> dict[str, Any]:
        """What was seen, by batch; the question itself belongs to the caller."""
        return {"values": [list(batch) for batch in self._batches]}

    def restore(self, body: Mapping[str, Any]) -> Decision | None:
        """Replay a stored state into a fresh test of the same question: the same batches give
        the same bets, so it goes on as if it had never stopped."""
        if self._batches:
            raise ValueError("only a fresh test can be restored")
        for batch in body["values"]:
            self.observe(self.next_windows(len(batch)), batch)
        return self.decision


def _require_between(low: float, limit: float, high: float) -> None:
    if not low < limit < high:
        raise ValueError(f"limit {limit:g} is not between {low:g} and {high:g}")
