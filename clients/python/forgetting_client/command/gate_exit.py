"""The exit code of a gate. 0 and 1 are verdicts and nothing else is; see docs/ci.md."""

from collections.abc import Mapping
from typing import Any

from forgetting_client import errors
from forgetting_client.command.faults import NOT_MEASURED, USAGE

CODES = {"pass": 0, "warn": 0, "fail": 1, "inconclusive": 3, "not_measurable": 4, "incomparable": 5}


INCOMPARABLE = CODES["incomparable"]
BASELINES = "policy.baselines."


class Disagreement(errors.ForgettingError):
    """A gate that says one thing and exits another is not believed."""


def code_of(gate: Mapping[str, Any]) -> int:
    """Of a gate that has ended. Raises Disagreement for one that contradicts itself, that has no
    verdict, or one that this version does not know."""
    verdict, said = gate.get("verdict"), gate.get("exit_code")
    if verdict not in CODES:
        raise Disagreement(
            f"the gate's verdict is {verdict!r}, which this client does not know; is it older "
            "than the service?"
        )
    lenient = (gate.get("policy") or {}).get("on_inconclusive") in ("warn", "pass")
    code = 0 if verdict == "inconclusive" and lenient else CODES[verdict]
    if said != code:
        raise Disagreement(f"the gate says {verdict} and exit code {said}, which do not agree")
    return code


def code_of_fault(error: errors.ForgettingError, *, asked: bool) -> int:
    """`asked`: the gate was accepted before. Then nothing is the caller's to mend any more.

    A wrong key says nothing of the adapter or the policy: it could not be measured. Without a
    baseline there is nothing to compare with.
    """
    if isinstance(error, errors.AdapterUnreadable) and (error.param or "").startswith(BASELINES):
        return INCOMPARABLE
    refused = isinstance(error, errors.Rejected) and not isinstance(error, errors.Unauthorized)
    if asked or not (refused or isinstance(error, errors.Unsendable)):
        return NOT_MEASURED
    if isinstance(error, errors.Rejected) and error.status in (401, 403, 408, 425, 429):
        return NOT_MEASURED
    return USAGE
