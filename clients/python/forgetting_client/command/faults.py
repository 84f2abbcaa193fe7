"""Errors to exit codes and sentences. 1 and 3 and 5 belong to verdicts, never to faults."""

from forgetting_client import errors
from forgetting_client.command.output import emit_json, say

OK, FAIL, USAGE, NOT_MEASURED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 4, 130, 141

EXIT_CODES: dict[type[errors.ForgettingError], int] = {
    errors.Rejected: USAGE,
    errors.Unsendable: USAGE,
    errors.ForgettingError: NOT_MEASURED,
}
"""By the nearest class above: what the caller can mend is 2, everything else is 4."""

ADVICE: dict[type[errors.ForgettingError], str] = {
    errors.Unreachable: "Start a service with `forgetting-service serve`, or name one with "
    "--server or FORGETTING_URL.",
    errors.UnexpectedReply: "Check --server or FORGETTING_URL; `forgetting doctor` tells more.",
    errors.Unauthorized: "Set FORGETTING_API_KEY to a key of this service.",
    errors.InsufficientScope: "`forgetting keys create --scope …`, with a key that has "
    "admin, makes a key that may.",
    errors.QuotaExceeded: "`GET /v1/limits` shows what the key's owner may spend.",
    errors.TooManyJobs: "`forgetting jobs list --status queued` tells which jobs wait.",
    errors.RateLimited: "Send fewer requests; `GET /v1/limits` shows how many are allowed.",
    errors.NotFinished: "`forgetting jobs watch ID` follows a job to its end; "
    "`forgetting jobs resume ID` takes up one that failed or was cancelled.",
    errors.NotResumable: "`forgetting jobs show ID` tells where the job stands.",
    errors.StillRunning: "Cancel it first: `forgetting jobs cancel ID`.",
    errors.AdapterInUse: "`forgetting jobs list` tells which jobs wait or run.",
    errors.PayloadTooLarge: "The service's FORGETTING_MAX_BODY_BYTES sets the limit, "
    "FORGETTING_MAX_ADAPTER_BYTES that of an adapter.",
    errors.IdempotencyKeyReused: "Use a new --idempotency-key, or none.",
    errors.DigestMismatch: "Download it again; if it stays so, the stored artifact is damaged.",
    errors.ServiceFault: "Try again later; if it stays so, the service's log has more.",
}


def exit_code(error: errors.ForgettingError) -> int:
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def advice(error: errors.ForgettingError) -> str | None:
    return next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), None)


def report(error: errors.ForgettingError, *, as_json: bool) -> None:
    """The fault on stderr: a sentence, the other refused fields, what to do, the request id."""
    if as_json:
        emit_json(as_dict(error), one_line=True, to_stderr=True)
        return
    if not isinstance(error, errors.ServiceError):
        say(f"Error: {error.message}")
    else:
        named = error.param is not None and error.param not in error.detail
        say(f"Error: {error.param}: {error.detail}" if named else f"Error: {error.detail}")
        for other in error.errors[1:]:
            say(f"  also {other.get('param')}: {other.get('message')}")
    hint = advice(error)
    if hint:
        say(hint)
    if isinstance(error, errors.ServiceError) and error.request_id:
        say(f"({error.code}, request {error.request_id})")


def as_dict(error: errors.ForgettingError) -> dict[str, object]:
    body: dict[str, object] = {"detail": error.message, "exit_code": exit_code(error)}
    if isinstance(error, errors.ServiceError):
        body |= {
            "code": error.code,
            "status": error.status,
            "param": error.param,
            "request_id": error.request_id,
            "errors": error.errors,
            "details": error.details,
        }
    return {"error": body}
