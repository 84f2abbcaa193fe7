"""What a gate says, of one check and of all of them, and the exit code of each answer."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

OnInconclusive = Literal["fail", "warn", "pass"]


class Verdict(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURABLE = "not_measurable"
    INCOMPARABLE = "incomparable"


PRECEDENCE = (
    Verdict.INCOMPARABLE,
    Verdict.NOT_MEASURABLE,
    Verdict.FAIL,
    Verdict.INCONCLUSIVE,
    Verdict.WARN,
    Verdict.PASS,
)
"""The first of these that a check which counts came to is the gate's verdict."""

EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.WARN: 0,
    Verdict.FAIL: 1,
    Verdict.INCONCLUSIVE: 3,
    Verdict.NOT_MEASURABLE: 4,
    Verdict.INCOMPARABLE: 5,
}
"""2 is left for usage and policy errors, which are no verdict."""


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Of the checks that count. None of them: pass."""
    found = set(verdicts)
    return next((verdict for verdict in PRECEDENCE if verdict in found), Verdict.PASS)


def exit_code(verdict: Verdict, *, on_inconclusive: OnInconclusive = "fail") -> int:
    """With `on_inconclusive` warn or pass an inconclusive gate exits 0, and is still named so."""
    if verdict is Verdict.INCONCLUSIVE and on_inconclusive != "fail":
        return 0
    return EXIT_CODES[verdict]
