"""What can go wrong, in the project's own terms. No HTTP here: `service.problems` maps it."""

from typing import Any, ClassVar


class ForgettingError(Exception):
    """Anything we refuse or fail on purpose. `code` is stable; the message is for people."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, param: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """Dotted path of the field to blame, e.g. `training.lora.r`."""
        self.details = details
        """JSON-safe facts that decide: limits, counts, line numbers."""


class UserError(ForgettingError):
    """The caller can mend this: the spec, the data or the adapter is at fault."""


class InvalidSpec(UserError):
    """A field's value cannot work."""

    code = "validation_error"


class ModelUnavailable(UserError):
    """The base model is not under an allowed root, not in the hub cache, or not allowed."""

    code = "model_unavailable"


class DatasetUnreadable(UserError):
    """The dataset is missing, empty, malformed or too short."""

    code = "dataset_unreadable"


class CorpusUnreadable(UserError):
    """The corpus is missing, or holds no window that can be scored."""

    code = "corpus_unreadable"


class PathNotAllowed(UserError):
    """A path leaves the allowed roots (`..`, an absolute path, a symlink)."""

    code = "path_not_allowed"


class AdapterUnreadable(UserError):
    """The adapter is missing, is not safetensors, or does not fit the base."""

    code = "adapter_unreadable"


class TrainingDiverged(UserError):
    """Loss became NaN or infinite, or exploded; the message names the step."""

    code = "training_diverged"


class EngineUnavailable(UserError):
    """The asked-for scoring engine cannot be used here."""

    code = "engine_unavailable"


class NotFound(ForgettingError):
    """No such job, law, artifact or page cursor."""

    code = "not_found"


class NotFinished(ForgettingError):
    """The job has no result yet, or never will."""

    code = "not_finished"


class NotResumable(ForgettingError):
    """Only failed and cancelled jobs resume, and sweeps with such children."""

    code = "not_resumable"


class StillRunning(ForgettingError):
    """A job that is queued or running cannot be deleted."""

    code = "still_running"


class AdapterInUse(ForgettingError):
    """An adapter that a queued or running job is to measure cannot be deleted."""

    code = "adapter_in_use"


class PayloadTooLarge(ForgettingError):
    """The body, or one file in it, is over the limit."""

    code = "payload_too_large"


class IdempotencyKeyReused(ForgettingError):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reused"


class TooFewPoints(ForgettingError):
    """A law needs more points, ranks or spread than there are."""

    code = "too_few_points"


class Unauthorized(ForgettingError):
    """No key, or a wrong one."""

    code = "unauthorized"


class InsufficientScope(ForgettingError):
    """The key is good, but not for this; `details` names the scope that is needed."""

    code = "insufficient_scope"


class QuotaExceeded(ForgettingError):
    """It costs more than the key's owner may spend; the numbers are in `details`."""

    code = "quota_exceeded"


class TooManyJobs(ForgettingError):
    """The owner has as many queued and running jobs as is allowed; some will end."""

    code = "too_many_jobs"


class RateLimited(ForgettingError):
    """More requests than the key may send; `Retry-After` says when the next will be heard."""

    code = "rate_limited"


class LeaseLost(ForgettingError):
    """This attempt no longer owns the job; whatever it reports is discarded."""

    code = "lease_lost"


class SystemFault(ForgettingError):
    """The operator's to mend: out of memory, disk full, a lost worker."""

    code = "system_fault"
