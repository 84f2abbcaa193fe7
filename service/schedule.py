"""Steps at which a run's adapter is kept and measured. They follow from the spec alone: never from
hardware, rank, or how often a run was resumed."""

from service.schemas.spec import Evaluation, Training

DECAYING = ("linear", "cosine")
"""Schedules under which step N of a long run is not a run of N steps."""
FIRST_SHARE = 0.2
"""Before a fifth of the run nothing is measured: the paper leaves out 50 of its 260 steps."""


def log_spaced_steps(max_steps: int, n: int = 8) -> list[int]:
    """Up to `n` steps in geometric progression from a fifth of the run to its end, both included.

    260 steps give 52, 65, 82, 104, 130, 164, 207, 260. Short runs give fewer, never doubles.
    """
    first = max(1.0, FIRST_SHARE * max_steps)
    ratio = max_steps / first
    spread = [first * ratio ** (i / (n - 1)) for i in range(n)] if n > 1 else [max_steps]
    return sorted({min(max_steps, max(1, round(step))) for step in spread} | {max_steps})


def checkpoint_steps(training: Training) -> list[int]:
    """Steps at which the adapter is kept; the last step always is."""
    if training.checkpoints == "log-spaced":
        return log_spaced_steps(training.max_steps)
    if training.checkpoints == "final":
        return [training.max_steps]
    return sorted({*training.checkpoints, training.max_steps})


def measured_steps(training: Training, evaluation: Evaluation) -> list[int]:
    """Steps whose adapter is measured: all that are kept, or the last one."""
    kept = checkpoint_steps(training)
    return kept[-1:] if evaluation.at == "final" else kept
