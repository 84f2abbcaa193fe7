"""What the client raises. Class names are the service's; `of_code` maps `code` to class."""

from collections.abc import Iterator
from typing import Any


class ForgettingError(Exception):
    """Anything that went wrong in a foreseen way. The message is for people."""

    @property
    def message(self) -> str:
        return str(self)


class Unreachable(ForgettingError):
    """No server answered, in as many tries as the retry policy allows."""


class UnexpectedReply(ForgettingError):
    """Something answered, but not as the forgetting service does."""


class Unsendable(ForgettingError):
    """No request can carry what was given: the address is no http(s) URL, a key does not fit
    into a header, an id is empty or not one."""


class DigestMismatch(ForgettingError):
    """A downloaded artifact is not the one that the service announced. Nothing was kept."""


class WaitTimeout(ForgettingError, TimeoutError):
    """The job did not finish within the time that the caller gave. It goes on."""


class ServiceError(ForgettingError):
    """The service said no. `str(error)` is the `detail` of its problem+json."""

    code: str = "error"

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        errors: list[dict[str, Any]] | None = None,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code or type(self).code
        self.param = param
        """Dotted path of the field to blame."""
        self.request_id = request_id
        self.errors = errors or []
        """One entry per refused field: `param`, `message`, `type`."""
        self.details = details or {}
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""


class ServiceFault(ServiceError):
    """Not the caller's to mend: the service, its database, its broker, or a gateway before it."""


class Rejected(ServiceError):
    """The request cannot be carried out as it stands; the same again will fail again."""


class InvalidSpec(Rejected):
    """A field's value cannot work."""

    code = "validation_error"


class ModelUnavailable(Rejected):
    """The base model is not under an allowed root, not in the hub cache, or not allowed."""

    code = "model_unavailable"


class DatasetUnreadable(Rejected):
    """The dataset is missing, empty, malformed or too short."""

    code = "dataset_unreadable"


class CorpusUnreadable(Rejected):
    """The corpus is missing, or holds no window that can be scored."""

    code = "corpus_unreadable"


class PathNotAllowed(Rejected):
    """A path leaves the folders that the service may read."""

    code = "path_not_allowed"


class AdapterUnreadable(Rejected):
    """The adapter is missing, is not safetensors, or does not fit the base."""

    code = "adapter_unreadable"


class EngineUnavailable(Rejected):
    """The asked-for scoring engine cannot be used there."""

    code = "engine_unavailable"


class NotFound(Rejected):
    """No such job, law, artifact or page cursor."""

    code = "not_found"


class NotFinished(Rejected):
    """The job has no result yet, or never will."""

    code = "not_finished"


class NotResumable(Rejected):
    """Only failed and cancelled jobs resume, and sweeps with such children."""

    code = "not_resumable"


class StillRunning(Rejected):
    """A job that is queued or running cannot be deleted."""

    code = "still_running"


class AdapterInUse(Rejected):
    """An adapter that a queued or running job is to measure cannot be deleted."""

    code = "adapter_in_use"


class PayloadTooLarge(Rejected):
    """The body, or one file in it, is over the service's limit."""

    code = "payload_too_large"


class IdempotencyKeyReused(Rejected):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reused"


class TooFewPoints(Rejected):
    """A law needs more points, ranks or spread than there are."""

    code = "too_few_points"


class Unauthorized(Rejected):
    """No key, or a wrong one."""

    code = "unauthorized"


class InsufficientScope(Rejected):
    """The key is good, but not for this; `details` names the scope that is needed."""

    code = "insufficient_scope"


class QuotaExceeded(Rejected):
    """It costs more than the key's owner may spend; the numbers are in `details`."""

    code = "quota_exceeded"


class TooManyJobs(ServiceFault):
    """The owner has as many queued and running jobs as is allowed; some will end."""

    code = "too_many_jobs"


class RateLimited(ServiceFault):
    """More requests than the key may send; `retry_after` says when the next will be heard."""

    code = "rate_limited"


class TrainingDiverged(ServiceError):
    """Loss became NaN or infinite, or exploded."""

    code = "training_diverged"


class LeaseLost(ServiceFault):
    """A worker reported on an attempt that is no longer its own."""

    code = "lease_lost"


class SystemFault(ServiceFault):
    """The operator's to mend: out of memory, disk full, a lost worker."""

    code = "system_fault"


def _below(parent: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _below(child)


CODES = {cls.code: cls for cls in _below(ServiceError) if "code" in vars(cls)}
"""One class for every code that the service can send."""


def of_code(code: str, status: int) -> type[ServiceError]:
    """The class of a problem. A code from a newer service falls back to its status."""
    return CODES.get(code) or (Rejected if 400 <= status < 500 else ServiceFault)
