"""What is said where there is no verdict, and the exit code of that."""

from collections.abc import Sequence
from typing import Any

from forgetting_client.command.faults import NOT_MEASURED, USAGE, advice
from forgetting_client.command.gate_exit import INCOMPARABLE, code_of_fault
from forgetting_client.command.gate_reports import Wanted
from forgetting_client.command.output import emit_json, say
from forgetting_client.errors import ForgettingError, ServiceError
from forgetting_client.policy_file import Fault, PolicyFile

POLICY = "policy."
LAST = {
    NOT_MEASURED: "Could not measure (exit 4): this says nothing of the adapter.",
    INCOMPARABLE: "Incomparable (exit 5): the baseline to compare with is missing.",
}


def tell_policy(faults: Sequence[Fault], wanted: Wanted, *, as_json: bool) -> int:
    """By line and column of the file."""
    if as_json:
        told = [vars(fault) for fault in faults]
        body = {"detail": "the policy cannot work", "exit_code": USAGE, "faults": told}
        emit_json({"error": body}, one_line=True, to_stderr=True)
    else:
        for fault in faults:
            say(fault.shown())
    wanted.tell_github_of_fault(USAGE, faults)
    return USAGE


def tell_fault(
    error: ForgettingError,
    wanted: Wanted,
    *,
    asked: str | None,
    policy: PolicyFile | None,
    as_json: bool,
) -> int:
    """`asked`: the gate, where a service has accepted it. `policy`: the one that was sent."""
    code = code_of_fault(error, asked=asked is not None)
    listed = refusals(error)
    in_policy = [(param, said) for param, said in listed if param.startswith(POLICY)]
    if policy is not None and code == USAGE and in_policy:
        for param, said in listed if not as_json else ():
            if not param.startswith(POLICY):
                say(f"Error: {param}: {said}")
        faults = [policy.blame(param.removeprefix(POLICY), said) for param, said in in_policy]
        return tell_policy(faults, wanted, as_json=as_json)
    if as_json:
        told = {"detail": error.message, "param": listed[0][0] or None, "gate": asked}
        emit_json({"error": {**told, "exit_code": code}}, one_line=True, to_stderr=True)
    else:
        for param, said in listed:
            say(f"Error: {said}" if not param or param in said else f"Error: {param}: {said}")
        if hint := advice(error):
            say(hint)
        if isinstance(error, ServiceError) and error.request_id:
            say(f"({error.code}, request {error.request_id})")
        if asked:
            say(f"Look at it again: forgetting gate {asked}")
        if code in LAST:
            say(LAST[code])
    wanted.tell_github_of_fault(code, [said for _, said in listed], gate=asked)
    return code


def refusals(error: ForgettingError) -> list[tuple[str, str]]:
    """Field and message of each; one without a field where nothing is told by field."""
    listed: Sequence[dict[str, Any]] = getattr(error, "errors", ())
    named = [(str(one["param"]), str(one.get("message"))) for one in listed if one.get("param")]
    return named or [(getattr(error, "param", None) or "", error.message)]
