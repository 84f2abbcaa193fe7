"""`forgetting-service keys`: make, list and revoke keys, straight in the database."""

from datetime import timedelta
from typing import Annotated

import typer

from service.errors import SystemFault
from service.keys import create_key
from service.present import key_view
from service.schemas.keys import Key, NewKeyRequest
from service.scopes import Scope
from service.settings import settings as process_settings
from service.store import Store

app = typer.Typer(
    help="Keys of the API. A secret is shown once, when it is made.", no_args_is_help=True
)

KeyName = Annotated[str, typer.Option(help="What it is for.")]
Owner = Annotated[str, typer.Option(help="Whose jobs, adapters and laws it sees.")]
Wanted = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="Repeat for several; default all but admin."),
]
Days = Annotated[float, typer.Option(help="Until it expires; 0: never.")]


@app.command()
def create(name: KeyName, owner: Owner, scope: Wanted = None, days: Days = 365.0) -> None:
    """Print a new key on stdout, once; what it is on stderr."""
    from pydantic import ValidationError

    said = {"name": name, "owner": owner, "expires_in_days": days or None}
    try:
        asked = NewKeyRequest.model_validate(said | ({"scopes": scope} if scope else {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemFault(f"--{first['loc'][0]}: {first['msg']}") from error
    settings, store = process_settings(), _store()
    try:
        row, token = create_key(
            store,
            settings,
            owner=asked.owner,
            name=asked.name,
            scopes=asked.scopes,
            lifetime_seconds=timedelta(days=days).total_seconds() if days else None,
        )
    finally:
        store.dispose()
    typer.echo(_line(key_view(row)), err=True)
    typer.echo(token)


@app.command("list")
def list_() -> None:
    """Every key that was ever made, newest first."""
    store = _store()
    try:
        for row in store.list_keys():
            typer.echo(_line(key_view(row)))
    finally:
        store.dispose()


@app.command()
def revoke(key_id: str) -> None:
    """From this moment the key opens nothing, in any service on this database."""
    store = _store()
    try:
        typer.echo(_line(key_view(store.revoke_key(key_id))))
    finally:
        store.dispose()


def _store() -> Store:
    settings = process_settings()
    store = Store(settings.database, settings)
    store.migrate()
    return store


def _line(key: Key) -> str:
    state = "live" if key.live else "revoked" if key.revoked_at else "expired"
    ends = key.expires_at or "never"
    used = key.last_used_at or "never"
    return (
        f"{key.id}  {state}  owner {key.owner}  {key.name}  scopes {','.join(key.scopes)}  "
        f"expires {ends}  used {used}"
    )
