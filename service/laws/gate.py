"""May this candidate ship? Every check on the windows scored so far, and one verdict of all.

The checks share the windows; scoring ends with the batch in which the last check that counts is
decided. A pass needs every check, so each passes at alpha undivided; one fail is enough, so each
fails at alpha over the number of checks that count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.laws.quantities import Floats
from service.laws.sequential import EQUAL, Indices, Interval, Sequential
from service.laws.statistic import NUMBERS, BadCheck, Check, Positions, Statistic, statistic_of
from service.laws.verdict import OnInconclusive, Verdict, exit_code, overall

NOISE_FLOORS = 3.0
"""A limit must be more than so many noise floors."""
SHARES = ("agreement", "percentile")
"""Kinds of statistic that are a share of positions."""
COMPARABLE = ("base", "tokenizer", "corpus", "context", "begins_with_bos", "window_rule")
"""Provenance that two results must share."""


@dataclass(frozen=True)
class Conditions:
    """What is known before the first window."""

    noise_floor: float | None = None
    """KL of the base against itself, nats per token."""
    parity_failed: bool = False
    different: tuple[str, ...] = ()
    """Provenance in which candidate and baseline or policy differ."""


@dataclass(frozen=True)
class CheckOutcome:
    id: str
    metric: str
    verdict: Verdict
    reason: str
    value: float | None
    """Mean or agreement so far, clipped means clipped; of a percentile check the share of
    positions above the limit."""
    interval: Interval | None
    limit: float | None
    """In the unit of `value`."""
    informational: bool
    n_clipped: int = 0


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    exit_code: int
    checks: tuple[CheckOutcome, ...]
    n_scored: int
    n_windows: int

    @property
    def fraction(self) -> float:
        """Share of the windows that were scored."""
        return self.n_scored / self.n_windows

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "fraction": self.fraction}


class Gate:
    """Feed `observe` with what `next_windows` names until `done`; then ask for `outcome`."""

    def __init__(
        self,
        checks: Sequence[Check],
        sizes: Sequence[int] | npt.NDArray[Any],
        *,
        alpha: float,
        order: Sequence[int] | npt.NDArray[Any],
        control: Floats | None = None,
        max_windows: int | None = None,
        exhaustive: bool = False,
        conditions: Conditions | None = None,
        on_inconclusive: OnInconclusive = "fail",
    ) -> None:
        """`sizes`, `order` and `control` are those of Sequential; `exhaustive`: no decision ends
        it, since something needs every window. Raises BadCheck."""
        self.checks = tuple(checks)
        for index, check in enumerate(self.checks):
            if any(check.id == other.id for other in self.checks[:index]):
                why = f"two checks are called {check.id!r}"
                raise BadCheck(why, check=check.id, field="id")
        self.conditions = conditions or Conditions()
        self.on_inconclusive = on_inconclusive
        self.exhaustive = exhaustive
        self.order = np.asarray(order, np.int64)
        self.max_windows = min(max_windows or len(self.order), len(self.order))
        self.n_scored = 0
        positions = np.asarray(sizes, np.int64)
        self._statistics = {
            check.id: statistic_of(check, positions)
            for check in self.checks
            if check.metric not in NUMBERS
        }
        counted = [c for c in self.checks if counts(c) and c.id in self._statistics]
        self._tests = {
            check.id: Sequential(
                positions,
                limit=self._statistics[check.id].limit,
                bounds=self._statistics[check.id].bounds,
                alpha=alpha,
                alpha_fail=alpha / max(len(counted), 1),
                order=self.order,
                control=control,
                max_windows=max_windows,
                noise_floor=self._noise(self._statistics[check.id]),
            )
            for check in self.checks
            if check.id in self._statistics
        }

    @property
    def done(self) -> bool:
        """Whether no further window could matter, or none may be scored."""
        if self.n_scored >= self.max_windows or self._refusal() is not None:
            return True
        counted = [check for check in self.checks if counts(check) and check.id in self._tests]
        if any(self._too_noisy(check) for check in counted):
            return True
        # Where nothing counts there is nothing to stop for: everything is scored for its values.
        may_stop = bool(counted) and not self.exhaustive
        return may_stop and all(self._tests[c.id].decision is not None for c in counted)

    @property
    def columns(self) -> tuple[str, ...]:
        """Arrays over positions that `observe` needs of every window."""
        return tuple(sorted({name for s in self._statistics.values() for name in s.columns}))

    def next_windows(self, count: int) -> Indices:
        """The windows to score next, at most `count`; none when done."""
        if self.done:
            return self.order[:0]
        return self.order[self.n_scored : min(self.n_scored + count, self.max_windows)]

    def observe(self, windows: Sequence[int] | Indices, positions: Sequence[Positions]) -> bool:
        """Take a batch, each window's arrays over its positions; says whether it is done."""
        for name, test in self._tests.items():
            read = self._statistics[name].read
            test.observe(windows, [read(window) for window in positions])
        self.n_scored += len(windows)
        return self.done

    def outcome(self, numbers: Mapping[str, float | str] | None = None) -> Outcome:
        """The verdict on what was scored. `numbers` are those of `NUMBERS`, by metric; in place of
        one that cannot be had, why."""
        found = tuple(self._judge(check, numbers or {}) for check in self.checks)
        verdict = overall(check.verdict for check in found if not check.informational)
        code = exit_code(verdict, on_inconclusive=self.on_inconclusive)
        return Outcome(verdict, code, found, self.n_scored, len(self.order))

    def to_json(self) -> dict[str, Any]:
        """What was seen; the question itself belongs to the caller."""
        return {name: test.to_json() for name, test in self._tests.items()}

    def restore(self, body: Mapping[str, Any]) -> None:
        """Go on from a stored state of the same question, as if it had never stopped."""
        if set(body) != set(self._tests):
            raise ValueError("the stored state is of other checks")
        for name, test in self._tests.items():
            test.restore(body[name])
            self.n_scored = test.n_scored

    def _judge(self, check: Check, numbers: Mapping[str, float | str]) -> CheckOutcome:
        refused = self._refusal()
        if refused is None and self._too_noisy(check):
            why = f"the limit is below {NOISE_FLOORS:g} noise floors"
            refused = (Verdict.NOT_MEASURABLE, why)
        if check.metric in NUMBERS:
            found = numbers.get(check.metric, f"no {check.metric}")
            if self.exhaustive and self.n_scored < len(self.order) and not isinstance(found, str):
                refused = refused or (Verdict.INCONCLUSIVE, f"max_windows {self.max_windows} spent")
            verdict, reason = refused or _compare(check, found)
            value = None if isinstance(found, str) else found
            limit = check.fails if check.fails is not None else check.warns
            return CheckOutcome(
                check.id, check.metric, verdict, reason, value, None, limit, check.informational
            )
        test = self._tests[check.id]
        turned = self._statistics[check.id].kind == "agreement"
        value, interval = (test.value, test.interval()) if test.n_scored else (None, None)
        if self._statistics[check.id].kind in SHARES and interval is not None:
            # Windows are of unequal size, so a mean of some may pass 1; that of all cannot.
            value, interval = min(test.value, 1.0), Interval(interval.low, min(interval.high, 1.0))
        if turned and value is not None and interval is not None:
            value, interval = 1 - value, Interval(1 - interval.high, 1 - interval.low)
        verdict, reason = refused or self._tested(check, test, value)
        return CheckOutcome(
            check.id,
            check.metric,
            verdict,
            reason,
            value,
            interval,
            1 - test.limit if turned else test.limit,
            check.informational,
            test.n_clipped,
        )

    def _tested(self, check: Check, test: Sequential, value: float | None) -> tuple[Verdict, str]:
        """A warning goes by the value so far: it costs no window and carries no error rate."""
        decision = test.decision
        if check.fails is not None and decision is None:
            return Verdict.INCONCLUSIVE, "undecided after the windows scored"
        if check.fails is not None and decision is not None and decision.verdict != Verdict.PASS:
            return decision.verdict, decision.reason
        kind = self._statistics[check.id].kind
        if check.warns is not None and value is not None and kind != "percentile":
            over = check.warns - value if kind == "agreement" else value - check.warns
            if over > EQUAL * check.warns:
                return Verdict.WARN, f"beyond the warning limit {check.warns:g}, by the value"
        elif check.fails is None and value is not None and value > test.limit * (1 + EQUAL):
            return Verdict.WARN, "beyond the warning limit, by the value"
        return Verdict.PASS, decision.reason if decision is not None else "within, by the value"

    def _refusal(self) -> tuple[Verdict, str] | None:
        if self.conditions.different:
            names = ", ".join(self.conditions.different)
            return Verdict.INCOMPARABLE, f"another {names}"
        if self.conditions.parity_failed:
            return Verdict.NOT_MEASURABLE, "the parity probe failed"
        return None

    def _too_noisy(self, check: Check) -> bool:
        if check.id not in self._statistics:
            return False
        statistic = self._statistics[check.id]
        limit = statistic.threshold or statistic.limit
        return limit < NOISE_FLOORS * self._noise(statistic, percentile=True)

    def _noise(self, statistic: Statistic, *, percentile: bool = False) -> float:
        """Of the tested mean; KL's noise says nothing about agreement, and about a percentile
        only whether its limit can be told from zero."""
        floor = self.conditions.noise_floor or 0.0
        if not statistic.columns[0].startswith("kl") or statistic.kind == "agreement":
            return 0.0
        return abs(floor) if statistic.kind != "percentile" or percentile else 0.0


def counts(check: Check) -> bool:
    """Whether the verdict hangs on it, so that windows are scored for it."""
    return not check.informational and check.fails is not None


def _compare(check: Check, value: float | str) -> tuple[Verdict, str]:
    """A number against its limits; at the limit it passes."""
    if isinstance(value, str):
        return Verdict.NOT_MEASURABLE, value
    if not np.isfinite(value):
        return Verdict.NOT_MEASURABLE, f"no {check.metric}"
    for limit, below, verdict in (
        (check.fail_above, False, Verdict.FAIL),
        (check.fail_below, True, Verdict.FAIL),
        (check.warn_above, False, Verdict.WARN),
        (check.warn_below, True, Verdict.WARN),
    ):
        if limit is not None and (value < limit if below else value > limit):
            return verdict, f"{'below' if below else 'above'} {limit:g}"
    return Verdict.PASS, "within the limits"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in `COMPARABLE` whose values two provenances do not share."""
    return tuple(name for name in COMPARABLE if one.get(name) != other.get(name))
