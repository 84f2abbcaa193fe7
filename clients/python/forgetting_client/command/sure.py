"""Before something is removed for good, whoever asked for it is asked back."""

import sys

import typer

from forgetting_client.command.faults import USAGE
from forgetting_client.command.output import say


def agreed(question: str, *, yes: bool) -> bool:
    """Whether to go on; `yes` where that was said beforehand. Exits 2 where nobody can answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        say(f"Error: {question} Nobody can answer here; add --yes.")
        raise typer.Exit(USAGE)
    if typer.confirm(question, err=True):
        return True
    say("Nothing removed.")
    return False
