"""The command `forgetting`. One file per group of commands; data on stdout, prose on stderr."""

import os
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper

FAULT = 4
"""Could not measure. Python's own exit code for a fault, 1, means "forgets too much" here."""


def main() -> None:
    """The console script. 0 and 1 are never the exit code of a fault."""
    try:
        open_streams()
        from forgetting_client.command.app import app

        app()
    except Exception:  # noqa: BLE001 -- a fault of our own must not pass for a verdict
        with suppress(OSError):
            traceback.print_exc()
            sys.stderr.write("A fault of this command; it says nothing of any adapter.\n")
        sys.exit(FAULT)
    finally:
        settle_streams()


def open_streams() -> None:
    """Closed ones (`>&-`) lead nowhere, lest the next file that is opened take their number; and a
    sign that the terminal does not know is no reason to end."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- for as long as we run
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def settle_streams() -> None:
    """What cannot be written is dropped: the interpreter would try once more, and exit 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
