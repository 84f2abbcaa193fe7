"""How far a gate is, on stderr: a line that moves on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from forgetting_client.command.output import clean, say

QUIET_SECONDS = 15.0
"""Between two lines of a log, unless the phase changes."""


class Waiting:
    """`show` what `GET /gates/{id}` answers, or the same fields from a gate in this process."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said, self._phase = -QUIET_SECONDS, ""
        self._drawn = 0

    def show(self, gate: Mapping[str, Any]) -> None:
        phase = str(gate.get("phase") or gate["status"]).replace("_", " ")
        progress = gate.get("progress")
        line = phase
        if progress and progress["total"]:
            total = f"{progress['total']:,.0f}"
            line += f": {progress['done']:,.0f} of at most {total} {progress['unit']}"
        if self._terminal:
            self._draw(line)
        elif phase != self._phase or time.monotonic() - self._said >= QUIET_SECONDS:
            self._phase, self._said = phase, time.monotonic()
            say(line)

    def close(self) -> None:
        if self._drawn:
            self._draw("")

    def _draw(self, line: str) -> None:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        text = clean(line)[: columns - 1]  # one that wraps could not be drawn over
        sys.stderr.write("\r" + text.ljust(self._drawn) + ("\r" if not text else ""))
        sys.stderr.flush()
        self._drawn = len(text)
