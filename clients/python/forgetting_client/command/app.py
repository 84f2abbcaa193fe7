"""`forgetting` put together. A new group of commands is one file and one `add_typer` line here."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forgetting_client import __version__
from forgetting_client.command import (
    adapters,
    compare,
    doctor,
    gate,
    jobs,
    keys,
    laws,
    policy,
    policy_init,
)
from forgetting_client.command.faults import (
    FAIL,
    INTERRUPTED,
    NOT_MEASURED,
    PIPE_CLOSED,
    exit_code,
    report,
)
from forgetting_client.command.output import emit, say
from forgetting_client.command.session import Session, session_of
from forgetting_client.errors import ForgettingError

EVERYWHERE = "--server URL and --json may stand anywhere. Exit codes: 0 done, 2 usage or rejected, "
EVERYWHERE += "4 failed, cancelled or unreachable; `gate` has 1, 3 and 5 besides, `compare` 5."


class Root(TyperGroup):
    """Takes --json and --server wherever they stand, and turns faults into exit codes."""

    failed = False
    """A gate's verdict is fail."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except SystemExit as end:
            # The parser ends so, too: a pipe that closes while it prints help, a prompt's end.
            if end.code == FAIL and not self.failed:
                raise SystemExit(NOT_MEASURED) from None
            raise

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoist(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.Exit as end:
            self.failed = end.exit_code == FAIL
            raise
        except ForgettingError as error:
            report(error, as_json=session_of(ctx).as_json)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            say("Stopped.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has gone; the interpreter must not try to flush into it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except OSError as fault:
            say(f"Error: {fault.filename or 'output'}: {fault.strerror}.")
            raise typer.Exit(NOT_MEASURED) from None


def hoist(args: list[str]) -> list[str]:
    """`jobs list --json` as `--json jobs list`; nothing behind `--` is touched."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--json" or word.startswith("--server="):
            front.append(word)
        elif word == "--server":
            front += [word, *[value for value in [next(words, None)] if value is not None]]
        else:
            rest.append(word)
    return front + rest


def version(wanted: bool) -> None:
    if wanted:
        emit(f"forgetting {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="forgetting",
    cls=Root,
    help="How much did this fine-tune make the model forget, and was that to be expected?",
    epilog=EVERYWHERE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(laws.app, name="laws")
app.add_typer(adapters.app, name="adapters")
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
app.command("gate", epilog=gate.EPILOG)(gate.gate)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
policy_init.register(policy.app)
app.command("doctor")(doctor.doctor)


@app.callback()
def options(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The service; default $FORGETTING_URL, else loopback."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    context.obj = Session(server=server, as_json=as_json, transport=context.obj)
