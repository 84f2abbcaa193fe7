"""Where words go: data to stdout, prose and progress to stderr."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

UNBOUNDED = 10_000
"""Columns of a table that goes into a pipe: nothing is cut there."""


def emit(text: str) -> None:
    """One line of data."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def emit_json(value: Any, *, one_line: bool = False, to_stderr: bool = False) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=None if one_line else 2)
    stream = sys.stderr if to_stderr else sys.stdout
    # A lone surrogate in a model's token would otherwise end the command.
    stream.write(text.encode("utf-8", "replace").decode() + "\n")
    stream.flush()


def say(text: str) -> None:
    """One line of prose. Where nobody can read it, what is done goes on all the same."""
    with suppress(OSError):
        sys.stderr.write(clean(text) + "\n")
        sys.stderr.flush()


def console(stream: TextIO | None = None) -> Console:
    """A console on stdout, or on `stream`. Strings are never read as markup."""
    from rich.console import Console

    class Out(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit 1, which is a verdict

    file = stream or sys.stdout
    width = None if file.isatty() else UNBOUNDED
    return Out(file=file, width=width, markup=False, highlight=False, emoji=False)


def show(*parts: RenderableType) -> None:
    """Data for people, on stdout."""
    out = console()
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, str))


def clean(text: str) -> str:
    """Without control characters: a server's words must not steer the terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if steers(char) else char for char in text)


def steers(char: str) -> bool:
    return (char < " " and char not in "\n\t") or "\x7f" <= char <= "\x9f"
