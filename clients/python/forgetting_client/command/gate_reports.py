"""Where a gate's reports go: files that were asked for, and what GitHub shows by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from forgetting_client.command import github
from forgetting_client.command.faults import NOT_MEASURED
from forgetting_client.command.gate_exit import INCOMPARABLE
from forgetting_client.command.gate_service import JUNIT, MARKDOWN, Source
from forgetting_client.command.output import say
from forgetting_client.errors import ForgettingError
from forgetting_client.policy_file import Fault

WORDS = {NOT_MEASURED: "not_measurable", INCOMPARABLE: "incomparable"}
"""Of a fault, as a verdict. A usage error is none."""


@dataclass(frozen=True)
class Wanted:
    junit: Path | None
    markdown: Path | None
    summary: bool
    annotate: bool
    comment: bool
    name: str
    """Tells the comments of two gates on one pull request apart."""

    def require_writable(self) -> None:
        """Before anything is queued. Raises typer.BadParameter.

        A report of an earlier run is removed: where this one ends without a verdict, nobody shall
        read the old one as its own.
        """
        for option, path in (("--junit", self.junit), ("--markdown", self.markdown)):
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8"):
                    pass
                if path.is_file() and not path.is_symlink():
                    path.unlink()
            except OSError as fault:
                said = f"{path} cannot be written: {fault.strerror}"
                raise typer.BadParameter(said, param_hint=option) from None

    def write_files(self, source: Source, gate: Mapping[str, Any]) -> None:
        """Raises OSError and what `source.report` does: they were asked for."""
        for path, media in ((self.junit, JUNIT), (self.markdown, MARKDOWN)):
            if path is not None:
                path.write_text(source.report(gate, media), encoding="utf-8", errors="replace")

    def tell_github(self, source: Source, gate: Mapping[str, Any], code: int) -> None:
        """Never raises: what cannot be shown is a warning."""
        _beside(
            "the step's outputs were", lambda: github.outputs(gate["verdict"], code, gate["id"])
        )
        if self.summary:
            _beside("the step's summary was", lambda: summarise(source, gate))
        if self.annotate:
            for line in github.annotations(gate, code):
                say(line)  # the runner reads them from either stream; stdout is the report's
        if self.comment:
            _beside("the pull request's comment was", lambda: self._comment(source, gate))

    def tell_github_of_fault(
        self, code: int, faults: Sequence[Fault | str], *, gate: str | None = None
    ) -> None:
        """Where there is no verdict. Never raises."""
        word = WORDS.get(code, "")
        _beside("the step's outputs were", lambda: github.outputs(word, code, gate))
        if self.annotate:
            for fault in faults:
                say(github.annotation_of(fault))

    def _comment(self, source: Source, gate: Mapping[str, Any]) -> None:
        text = source.report(gate, MARKDOWN, max_bytes=github.COMMENT_BYTES)
        github.comment(text, name=self.name)


def summarise(source: Source, gate: Mapping[str, Any]) -> None:
    room = github.summary_room()
    if room is not None:
        github.summarise(source.report(gate, MARKDOWN, max_bytes=room))


def _beside(what: str, act: Callable[[], object]) -> None:
    """A fault of something that is no verdict changes none."""
    import httpx2

    try:
        act()
    except (ForgettingError, OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        say(f"Warning: {what} not written: {error}. The verdict stands.")
