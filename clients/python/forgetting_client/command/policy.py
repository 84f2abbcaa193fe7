"""`forgetting policy …`: the file that says what an adapter must keep to."""

import json
from pathlib import Path
from typing import Annotated

import typer

from forgetting_client.command.faults import USAGE
from forgetting_client.command.output import emit, emit_json, say
from forgetting_client.command.session import session_of

app = typer.Typer(
    help="The file that says what an adapter must keep to.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DEFAULT = Path("forgetting.yml")


@app.command("check")
def check_policy(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Default: forgetting.yml.")
    ] = None,
) -> None:
    """Say what is wrong with policy files, by line and column. Asks no service. Exit 0 or 2."""
    from forgetting_client.policy_check import load
    from forgetting_client.policy_file import BadPolicy

    faults = []
    wanted = files or [DEFAULT]
    for file in wanted:
        try:
            policy = load(file)
        except BadPolicy as bad:
            faults += bad.faults
        else:
            if not session_of(context).as_json:
                n_checks = len(policy.body["checks"])
                say(f"{file}: {n_checks} {'check' if n_checks == 1 else 'checks'}, no fault")
    if session_of(context).as_json:
        emit_json({"faults": [vars(fault) for fault in faults]})
    else:
        for fault in faults:
            emit(fault.shown())
    if faults:
        raise typer.Exit(USAGE)


@app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of a policy, for an editor."""
    from forgetting_client.policy_check import schema

    emit(json.dumps(schema(), indent=2))
