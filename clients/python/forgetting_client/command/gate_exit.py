"""The exit code of a gate. 0 and 1 are verdicts and nothing else is; see docs/ci.md."""

from collections.abc import Mapping
from typing import Any

from forgetting_client import errors
from forgetting_client.command.faults import FAIL, NOT_MEASURED, OK, USAGE
from forgetting_client.command.gate_local import LocalFault

INCONCLUSIVE, INCOMPARABLE = 3, 5
CODES = {
    "pass": OK,
    "warn": OK,
    "fail": FAIL,
    "inconclusive": INCONCLUSIVE,
    "not_measurable": NOT_MEASURED,
    "incomparable": INCOMPARABLE,
}
BASELINES = "policy.baselines."
PASSING = frozenset({401, 403, 408, 425, 429})
"""Refusals that say nothing of what was asked: of the key, or of the moment."""


class Disagreement(errors.ForgettingError):
    """A gate that says one thing and exits another is not believed."""


def code_of(gate: Mapping[str, Any]) -> int:
    """Of a gate that has ended. Raises Disagreement for one that contradicts itself, that has no
    verdict, or one that this version does not know."""
    verdict, said, result = gate.get("verdict"), gate.get("exit_code"), gate.get("result")
    if not isinstance(verdict, str) or verdict not in CODES:
        raise Disagreement(
            f"the gate's verdict is {verdict!r}, which this client does not know; is it older "
            "than the service?"
        )
    lenient = (gate.get("policy") or {}).get("on_inconclusive") in ("warn", "pass")
    code = OK if verdict == "inconclusive" and lenient else CODES[verdict]
    if said != code:
        raise Disagreement(f"the gate says {verdict} and exit code {said}, which do not agree")
    found = "not_measurable" if result is None else result.get("verdict")
    if found != verdict:
        raise Disagreement(f"the gate says {verdict} and its result {found}, which do not agree")
    return code


def code_of_fault(error: errors.ForgettingError, *, asked: bool) -> int:
    """`asked`: the gate was accepted before. Then nothing is the caller's to mend any more.

    A wrong key says nothing of the adapter or the policy, and neither does a page that some proxy
    answers with: it could not be measured. Without a baseline there is nothing to compare with.
    """
    if asked:
        return NOT_MEASURED
    if isinstance(error, LocalFault):
        refused, code = error.refused, error.code
    elif isinstance(error, errors.Rejected):
        ours = not error.code.startswith("http_")
        refused, code = ours and error.status not in PASSING, error.code
    else:
        return USAGE if isinstance(error, errors.Unsendable) else NOT_MEASURED
    if not refused:
        return NOT_MEASURED
    missing = code == errors.AdapterUnreadable.code
    return INCOMPARABLE if missing and (error.param or "").startswith(BASELINES) else USAGE
