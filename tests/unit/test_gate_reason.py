"""The one sentence of a gate, by what decided it."""

from typing import Any

import pytest

from service.gate_reason import reason_of
from service.schemas.gate import GateResult
from tests.gate_results import check, gate_result

AFTER = "after 62 of 4,927 windows"
SAID: list[tuple[list[dict[str, Any]], str]] = [
    ([check("fail")], f"fail: mean kl 0.131 is above 0.08 {AFTER}"),
    ([check("pass")], f"pass: mean kl 0.031 is within 0.08 {AFTER}"),
    ([check("pass"), check("pass", id="b")], f"pass: all 2 checks are within their limits {AFTER}"),
    ([check("fail"), check("fail", id="b"), check("pass", id="c")], f"(and 1 more) {AFTER}"),
    (
        [check("fail", metric="same_top", value=0.8, limit=0.9)],
        f"fail: same_top 0.8 is below 0.9 {AFTER}",
    ),
    (
        [check("fail", metric="kl_percentiles.p99", value=1.2, limit=1.0)],
        f"fail: p99 of kl 1.2 is above 1 {AFTER}",
    ),
    (
        [check("fail", baseline="prod", value=0.02, limit=0.01)],
        f"fail: increase of mean kl over prod 0.02 is above 0.01 {AFTER}",
    ),
    ([check("inconclusive")], f"inconclusive: mean kl 0.0801 cannot be told from 0.08 {AFTER}"),
    ([check("fail", value=0.0800004)], f"fail: mean kl 0.0800004 is above 0.08 {AFTER}"),
    # Decided by clipped values and by windows yet to come: no falsehood about the value.
    ([check("fail", value=0.07)], f"fail: mean kl 0.07: decided by the test {AFTER}"),
    ([check("warn", value=0.06)], f"warn: mean kl 0.06: decided by the test {AFTER}"),
    (
        [check("not_measurable", value=None, reason="the parity probe failed", interval=None)],
        f"not measurable: mean kl: the parity probe failed {AFTER}",
    ),
    (
        [check("fail", informational=True)],
        f"pass: nothing is checked but for information, {AFTER}",
    ),
]


@pytest.mark.parametrize(("checks", "said"), SAID)
def test_reason(checks: list[dict[str, Any]], said: str) -> None:
    reason = reason_of(GateResult.model_validate(gate_result(*checks)))
    assert reason.endswith(said) if said.startswith("(") else reason == said


def test_what_differs_is_named() -> None:
    body = gate_result(check("incomparable"), different=["corpus", "context"])
    said = "incomparable: another corpus and context than the limits were found on"
    assert reason_of(GateResult.model_validate(body)) == said
