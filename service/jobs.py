"""Job states, and the one table of moves between them. Every guarded UPDATE reads it."""

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    # Back to queued: the worker was lost, or it released the job on SIGTERM.
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}
    ),
    # Only a sweep's: it follows a failed or cancelled child that is resumed. A job that
    # measured something never leaves.
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),
    # Resume is the one way out of failed and cancelled.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
RESUMABLE = frozenset({JobState.FAILED, JobState.CANCELLED})


def sources(target: JobState) -> list[JobState]:
    """States from which `target` may be entered, in declaration order."""
    return [state for state in JobState if target in NEXT[state]]


class Phase(StrEnum):
    """What a running attempt is doing. Shown to people; no code branches on it."""

    VALIDATING = "validating"
    LOADING = "loading"
    TRAINING = "training"
    SCORING_BASE = "scoring_base"
    SCORING_TUNED = "scoring_tuned"
    FITTING = "fitting"


class FailureClass(StrEnum):
    """Who can mend a failure: the person who wrote the spec, or the operator."""

    USER = "user"
    SYSTEM = "system"
