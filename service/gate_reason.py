"""A gate's verdict as one sentence for people, the same wherever the gate ran."""

from service.jobs import TERMINAL, JobState
from service.laws.statistic import AGREEMENTS, MEANS, PERCENTILES
from service.laws.verdict import Verdict
from service.schemas.gate import GateCheck, GateResult
from service.schemas.views import JobError

SAME = 1e-4
"""Relative; closer numbers are written with more digits."""


def verdict_of(stored: str | None, state: JobState) -> Verdict | None:
    """Of a gate's job: null until it ends; one that did not succeed measured nothing."""
    if state is JobState.SUCCEEDED:
        return None if stored is None else Verdict(stored)
    return Verdict.NOT_MEASURABLE if state in TERMINAL else None


def unmeasured(state: JobState, error: JobError | None) -> str | None:
    """Of a job without a result: `not measurable: the GPU is out of memory`; null while it goes."""
    if state not in TERMINAL:
        return None
    return f"not measurable: {error.detail if error is not None else f'the job was {state}'}"


def reason_of(result: GateResult) -> str:
    """`fail: mean kl 0.131 is above 0.08 after 62 of 4,927 windows`."""
    verdict = result.verdict
    word = verdict.replace("_", " ")
    if verdict is Verdict.INCOMPARABLE and result.different:
        *rest, last = result.different
        what = f"{', '.join(rest)} and {last}" if rest else last
        return f"{word}: another {what} than the limits were found on"
    counted = [check for check in result.checks if not check.informational]
    deciding = [check for check in counted if check.verdict is verdict]
    after = f"after {result.n_scored:,} of {result.n_windows:,} windows"
    if not deciding:
        return f"{word}: nothing is checked but for information, {after}"
    first, *others = deciding
    if verdict is Verdict.PASS and others:
        return f"{word}: all {len(deciding)} checks are within their limits {after}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{word}: {clause(first)}{more} {after}"


def clause(check: GateCheck) -> str:
    """`mean kl 0.131 is above 0.08`."""
    name = named(check)
    if check.value is None or check.limit is None:
        return f"{name}: {check.reason}"
    value, limit = told_apart(check.value, check.limit)
    floor = check.metric in AGREEMENTS
    beyond = check.value < check.limit if floor else check.value > check.limit
    said = {
        Verdict.PASS: f"{name} {value} is within {limit}",
        Verdict.FAIL: f"{name} {value} is {'below' if floor else 'above'} {limit}",
        Verdict.INCONCLUSIVE: f"{name} {value} cannot be told from {limit}",
    }
    # A test looks at clipped values and at windows yet to come: it may know better than the value.
    if beyond is (check.verdict is Verdict.FAIL) and check.verdict in said:
        return said[check.verdict]
    if check.verdict is Verdict.INCONCLUSIVE:
        return said[check.verdict]
    return f"{name} {value}: {check.reason}"


def named(check: GateCheck) -> str:
    """`mean kl`, `p99 of kl`, `increase of mean kl over prod`, `same_top`."""
    name = check.metric
    if name in PERCENTILES:
        metric, _, which = name.partition("_percentiles.")
        name = f"{which} of {metric}"
    elif name in MEANS:
        name = f"mean {name}"
    return f"increase of {name} over {check.baseline}" if check.baseline is not None else name


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Both with three digits, or with as many as it takes to see that they differ."""
    for digits in range(3, 17):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1] or one == other:
            break
    return texts
