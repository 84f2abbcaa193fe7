"""Artifacts of a job into a folder, each under its own name."""

import sys
from pathlib import Path, PurePosixPath

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from forgetting_client.client import ForgettingClient
from forgetting_client.command.output import console
from forgetting_client.errors import UnexpectedReply
from forgetting_client.wire import Artifact


def fetch(client: ForgettingClient, job_id: str, name: str | None, into: Path) -> list[Path]:
    """The artifact `name`, all below the folder `name`, or all; the files written."""
    stored = client.artifacts(job_id)
    wanted = [one for one in stored if name is None or chosen(one, name)]
    if not wanted:
        listed = ", ".join(one["name"] for one in stored) or "none"
        raise typer.BadParameter(f"{job_id} has no artifact {name}; it has: {listed}")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    written = []
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        for artifact in wanted:
            target = place(into, artifact["name"])
            target.parent.mkdir(parents=True, exist_ok=True)
            task = bar.add_task(artifact["name"], total=artifact["bytes"])

            def advance(done: int, task: TaskID = task) -> None:
                bar.update(task, completed=done)

            written.append(client.download(job_id, artifact["name"], target, progress=advance))
    return written


def chosen(artifact: Artifact, name: str) -> bool:
    return artifact["name"] == name or artifact["name"].startswith(name.rstrip("/") + "/")


def place(into: Path, name: str) -> Path:
    """Below `into`, whatever the service calls the artifact."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise UnexpectedReply(f"The artifact name {name!r} would leave the folder {into}.")
    return into.joinpath(*path.parts)
