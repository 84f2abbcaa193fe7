"""What a running job says of itself: phases, their seconds, progress, and obedience to a stop."""

import threading
import time
from collections.abc import Callable
from typing import Any

from service.jobs import Phase
from worker.heldout import OnRows
from worker.score import OnWindows
from worker.train import Released
from worker.watch import Report

PROGRESS_SECONDS = 0.25


class Phases:
    """Reports phases and progress, adds up their seconds, and ends scoring when asked to stop."""

    def __init__(self, report: Report, stop: threading.Event) -> None:
        self.step = 0
        """Where the run stood when it was released."""
        self._report, self._stop = report, stop
        self._entered: list[tuple[Phase, float]] = []
        self._reported_at = 0.0

    def check(self) -> None:
        """Raises Released on stop."""
        if self._stop.is_set():
            raise Released(self.step)

    def waiting(self, why: str) -> Callable[[], None]:
        """To be called while another is waited for: says why, once; raises Released on stop."""
        told = False

        def wait() -> None:
            nonlocal told
            self.check()
            if not told:
                told = True
                self._report({"kind": "log", "message": why})

        return wait

    def enter(self, phase: Phase) -> None:
        self.check()
        self._entered.append((phase, time.monotonic()))
        self._report({"kind": "phase", "phase": phase.value})

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per phase, up to now."""
        ends = [*(at for _, at in self._entered[1:]), time.monotonic()]
        spent = zip(self._entered, ends, strict=True)
        return {phase.value: round(end - at, 3) for (phase, at), end in spent}

    def windows(self, passes: int, index: int) -> OnWindows:
        """Progress over `passes` passes, in the one of that index; raises Released on stop."""
        return self._progress("windows", passes, index)

    def rows(self, passes: int, index: int) -> OnRows:
        """The same for held-out rows."""
        return self._progress("rows", passes, index)

    def _progress(self, unit: str, passes: int, index: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            self.check()
            now = time.monotonic()
            if done == total or now - self._reported_at >= PROGRESS_SECONDS:
                self._reported_at = now
                done_in_all, in_all = done + index * total, passes * total
                self._report(
                    {"kind": "progress", "done": done_in_all, "total": in_all, "unit": unit}
                )

        return progress


def noting(report: Report, warnings: list[str]) -> Report:
    """`report`, with the warnings kept for the result."""

    def reporting(event: dict[str, Any]) -> None:
        if event["kind"] == "warning":
            warnings.append(event["message"])
        report(event)

    return reporting
