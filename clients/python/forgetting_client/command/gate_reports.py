"""Where a gate's reports go: files that were asked for, and what GitHub shows by itself."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from forgetting_client.command import github
from forgetting_client.command.gate_service import JUNIT, MARKDOWN, Source
from forgetting_client.errors import ForgettingError


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
        """Before anything is queued. Raises typer.BadParameter."""
        for option, path in (("--junit", self.junit), ("--markdown", self.markdown)):
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8"):
                    pass
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
        import httpx2

        faults = (ForgettingError, OSError, ValueError, httpx2.HTTPError)
        try:
            if github.in_actions():
                github.outputs(gate, code)
            if self.summary:
                github.summarise(source.report(gate, MARKDOWN, max_bytes=github.SUMMARY_BYTES))
        except faults as error:
            github.beside("the step's summary or outputs were not written", error)
        if self.annotate:
            # The runner reads commands from either stream; stdout is the report's.
            sys.stderr.write("".join(f"{line}\n" for line in github.annotations(gate)))
            sys.stderr.flush()
        if self.comment:
            try:
                text = source.report(gate, MARKDOWN, max_bytes=github.COMMENT_CHARACTERS)
                github.comment(text, name=self.name)
            except faults as error:
                github.beside("the pull request's comment was not written", error)
