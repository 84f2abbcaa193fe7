"""`forgetting keys …`: make, list and revoke keys of the service, with a key that has `admin`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.session import session_of
from forgetting_client.command.words import ago, when

if TYPE_CHECKING:
    from forgetting_client.key_methods import Key

app = typer.Typer(
    help="Make, list and revoke keys; needs a key with the scope admin.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Scope(StrEnum):
    jobs_read = "jobs:read"
    jobs_write = "jobs:write"
    laws_read = "laws:read"
    laws_write = "laws:write"
    admin = "admin"


@app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What it is for, as 'CI of repository x'.")],
    owner: Annotated[str, typer.Option(help="Whose jobs, adapters and laws it sees.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="Repeat for several; all but admin unless said.")
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Until it expires; 0: never.")] = 365.0,
) -> None:
    """Print a new key on stdout: the only time that it is shown."""
    session = session_of(context)
    with session.connect() as client:
        made = client.create_key(
            owner=owner,
            name=name,
            scopes=[one.value for one in scope] if scope else None,
            expires_in_days=days or None,
        )
    if session.as_json:
        emit_json(made)
        return
    emit(made["key"])
    until = when(made["expires_at"]) if made["expires_at"] else "it is revoked"
    say(
        f"{made['id']} of {made['owner']} may {', '.join(made['scopes'])} until {until}. "
        "Keep it now: it is not shown again."
    )


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """Every key that was ever made, newest first, without secrets."""
    session = session_of(context)
    with session.connect() as client:
        keys = client.keys()
    if session.as_json:
        emit_json(keys)
        return
    if not keys:
        say("No keys. FORGETTING_API_KEY of the service is none of them.")
        return
    from forgetting_client.command.job_page import cell, fit, grid

    table = grid("id", "state", "owner", "scopes", "expires", "used", "name")
    for one in keys:
        expires = when(one["expires_at"]) if one["expires_at"] else "never"
        used = ago(one["last_used_at"]) if one["last_used_at"] else "never"
        scopes = ",".join(one["scopes"])
        table.add_row(
            one["id"], state(one), cell(one["owner"]), scopes, expires, used, cell(one["name"])
        )
    show(fit(table))


@app.command("revoke")
def revoke_key(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="key_…")],
) -> None:
    """From this moment the key opens nothing."""
    session = session_of(context)
    with session.connect() as client:
        key = client.revoke_key(key_id)
    if session.as_json:
        emit_json(key)
    else:
        say(f"{key['id']} of {key['owner']} is {state(key)}.")


def state(key: "Key") -> str:
    return "live" if key["live"] else "revoked" if key["revoked_at"] else "expired"
