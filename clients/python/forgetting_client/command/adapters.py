"""`forgetting adapters …`: upload, list, show, delete; and uploads on behalf of `jobs submit`."""

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetting_client.command.output import console, emit, emit_json, say, show
from forgetting_client.command.session import session_of
from forgetting_client.command.sure import agreed
from forgetting_client.command.words import ago, number, when

if TYPE_CHECKING:
    from forgetting_client.adapter_methods import Adapter
    from forgetting_client.client import ForgettingClient

app = typer.Typer(
    help="Send adapters of other trainers.", no_args_is_help=True, rich_markup_mode=None
)

AdapterId = Annotated[str, typer.Argument(metavar="ADAPTER", help="adp_…")]
PATIENCE_SECONDS = 2.0
"""What is over sooner needs no bar."""


@app.command("upload")
def upload_adapter(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="As PEFT saved it.")],
    base_model: Annotated[str, typer.Option(help="What it was trained on.")],
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
) -> None:
    """Send a LoRA adapter and print its id; the same content has the same id."""
    session = session_of(context)
    with session.connect() as client:
        adapter = upload(client, folder, base_model, revision)
    if session.as_json:
        emit_json(adapter)
        return
    emit(adapter["id"])
    say(f"Measure it: forgetting jobs submit --base-model {base_model} --adapter {adapter['id']}")


@app.command("list")
def list_adapters(
    context: typer.Context,
    base_model: Annotated[str | None, typer.Option(help="Only those for this base.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
) -> None:
    """Uploaded adapters, newest first."""
    session = session_of(context)
    with session.connect() as client:
        wanted = None if everything else limit
        adapters = list(client.adapters(base_model=base_model, limit=wanted))
    if session.as_json:
        emit_json(adapters)
        return
    if not adapters:
        say("No such adapters.")
        return
    from forgetting_client.command.job_page import cell, fit, grid

    table = grid("id", "rank", "P", "bytes", "created", "base", right=("rank", "P", "bytes"))
    for one in adapters:
        sizes = (number(one[name]) for name in ("rank", "trainable_params", "bytes"))
        table.add_row(one["id"], *sizes, ago(one["created_at"]), cell(one["base_model"]))
    show(fit(table))
    if len(adapters) == limit and not everything:
        say(f"The newest {limit}; --limit or --all for more.")


@app.command("show")
def show_adapter(context: typer.Context, adapter_id: AdapterId) -> None:
    """One adapter: its size, its digest, the base it was checked against."""
    session = session_of(context)
    with session.connect() as client:
        adapter = client.adapter(adapter_id)
    if session.as_json:
        emit_json(adapter)
        return
    revision = f"@{adapter['revision']}" if adapter["revision"] else ""
    show(
        f"{adapter['id']}  rank {adapter['rank']}, P {number(adapter['trainable_params'])}, "
        f"{number(adapter['bytes'])} bytes",
        f"base     {adapter['base_model']}{revision}",
        f"digest   {adapter['digest']}",
        f"created  {when(adapter['created_at'])}",
    )


@app.command("delete")
def delete_adapter(
    context: typer.Context,
    adapter_id: AdapterId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an adapter that no queued or running job is to measure; results stay."""
    session = session_of(context)
    if not agreed(f"Remove {adapter_id} and its files for good?", yes=yes):
        return
    with session.connect() as client:
        client.delete_adapter(adapter_id)
    if session.as_json:
        emit_json({"id": adapter_id, "deleted": True})
    else:
        say(f"{adapter_id} is removed.")


def upload_local(
    client: "ForgettingClient", spec: dict[str, Any], named: Collection[str] | None
) -> None:
    """Sends those adapters of `--adapter` that are folders here, and puts their ids in `spec`."""
    from forgetting_client.adapter_methods import is_adapter

    for wanted in spec.get("adapters") or ():
        path = wanted.get("path") if isinstance(wanted, dict) else None
        if path is None or path not in (named or ()):
            continue
        if not is_adapter(Path(path)):
            if path.startswith(("./", "../", "~")):  # no name of a folder there
                why = "has no adapter_config.json" if Path(path).is_dir() else "is no folder here"
                raise typer.BadParameter(f"{path} {why}", param_hint="--adapter")
            continue
        if not isinstance(spec.get("base_model"), str):
            raise typer.BadParameter(f"{path} is a folder here: --base-model must say of what")
        adapter = upload(client, Path(path), spec["base_model"], spec.get("revision"))
        say(f"{path} is {adapter['id']}")
        del wanted["path"]
        wanted["id"] = adapter["id"]


def upload(
    client: "ForgettingClient", folder: Path, base_model: str, revision: str | None
) -> "Adapter":
    with bar(folder) as moved:
        return client.upload_adapter(
            folder, base_model=base_model, revision=revision, progress=moved
        )


@contextmanager
def bar(folder: Path) -> Iterator[Any]:
    """A callback (done, total) that draws, once it has taken long enough to be looked at."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    drawn = Progress(*columns, TransferSpeedColumn(), console=console(sys.stderr), transient=True)
    task = drawn.add_task(folder.name, total=None)
    began = time.monotonic()

    def moved(done: int, total: int) -> None:
        drawn.update(task, completed=done, total=total)
        if not drawn.live.is_started and time.monotonic() - began > PATIENCE_SECONDS:
            drawn.start()

    try:
        yield moved
    finally:
        drawn.stop()
