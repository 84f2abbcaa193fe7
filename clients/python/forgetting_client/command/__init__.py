"""The command `forgetting`. One file per group of commands; data on stdout, prose on stderr."""

import sys
import traceback

FAULT = 4
"""Could not measure. Python's own exit code for a fault, 1, means "forgets too much" here."""


def main() -> None:
    try:
        from forgetting_client.command.app import app

        app()
    except Exception:  # noqa: BLE001 -- a fault of our own must not pass for a verdict
        traceback.print_exc()
        sys.stderr.write("A fault of this command; it says nothing of any adapter.\n")
        sys.exit(FAULT)
