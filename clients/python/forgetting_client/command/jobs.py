"""`forgetting jobs …`, from submit to download."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.session import session_of
from forgetting_client.command.spec import split
from forgetting_client.command.submit import EXAMPLES, submit
from forgetting_client.command.sure import agreed
from forgetting_client.gate_wire import Gate

app = typer.Typer(
    help="Fine-tune, measure, follow, fetch.", no_args_is_help=True, rich_markup_mode=None
)
app.command("submit", epilog=EXAMPLES)(submit)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="job_…")]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@app.command("list")
def list_jobs(
    context: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
    job_type: Annotated[
        Literal["finetune", "evaluate", "sweep", "gate"] | None,
        typer.Option("--type", help="Only of this type."),
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Only on this base.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Children of this sweep.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="With this label. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
) -> None:
    """Jobs, newest first."""
    session = session_of(context)
    labels = dict(split(pair, "--metadata") for pair in metadata or [])
    with session.connect() as client:
        jobs = list(
            client.jobs(
                status=status,
                type=job_type,
                base_model=base_model,
                sweep=sweep,
                metadata=labels,
                limit=None if everything else limit,
            )
        )
    if session.as_json:
        emit_json(jobs)
        return
    if not jobs:
        say("No such jobs.")
        return
    from forgetting_client.command.job_page import job_table

    show(job_table(jobs))
    if len(jobs) == limit and not everything:
        say(f"The newest {limit}; --limit or --all for more.")


@app.command("show")
def show_job(context: typer.Context, job_id: JobId) -> None:
    """One job: where it stands, what it measured."""
    session = session_of(context)
    with session.connect() as client:
        job = client.job(job_id)
        if session.as_json:
            emit_json(job)
            return
        from forgetting_client.command.job_page import (
            checkpoint_table,
            children_table,
            heading,
            result_tables,
        )
        from forgetting_client.command.pilot_page import prophecy

        show(*heading(job))
        if job["type"] == "sweep":
            children = list(client.jobs(sweep=job_id))[::-1]
            saved = {one["id"]: client.checkpoints(one["id"]) for one in children}
            show("", children_table(children, {k: v[-1] for k, v in saved.items() if v}))
            if job["pilot"] and job["status"] == "succeeded":
                show("", *prophecy(client, job))
        elif job["type"] == "gate":
            show_gate(client.gate(job_id))
        elif job["status"] == "succeeded":
            show(*result_tables(client.result(job_id)))
        elif checkpoints := client.checkpoints(job_id):
            show("", checkpoint_table(checkpoints))


def show_gate(gate: Gate) -> None:
    """What decided it, the verdict last; nothing while there is none."""
    from forgetting_client.command.gate_exit import code_of
    from forgetting_client.command.gate_page import gate_page, verdict_line

    if gate["verdict"] is not None:
        show("", *gate_page(gate), verdict_line(gate, code_of(gate)))


@app.command("watch")
def watch(
    context: typer.Context,
    job_id: JobId,
    after: Annotated[int | None, typer.Option(help="Only events past this id.")] = None,
) -> None:
    """Follow a job to its end: 0 if all of it succeeded, 4 if not; of a gate its own exit code.
    Ctrl-C leaves it running."""
    from forgetting_client.command.watch import watch_job

    session = session_of(context)
    with session.connect() as client:
        job = client.job(job_id)
        code = watch_job(client, job, after=after, as_json=session.as_json, stream=sys.stdout)
    raise typer.Exit(code)


@app.command("cancel")
def cancel(context: typer.Context, job_id: JobId) -> None:
    """Stop a job, or a sweep with all its children."""
    session = session_of(context)
    with session.connect() as client:
        job = client.cancel(job_id)
    if session.as_json:
        emit_json(job)
    elif job["status"] == "running":
        say(f"{job_id} is being stopped; its worker is free within seconds.")
    elif job["status"] == "cancelled":
        say(f"{job_id} is cancelled.")
    else:
        say(f"{job_id} had already {job['status']}.")


@app.command("resume")
def resume(context: typer.Context, job_id: JobId) -> None:
    """Queue a failed or cancelled job again, from its last checkpoint."""
    session = session_of(context)
    with session.connect() as client:
        job = client.resume(job_id)
    if session.as_json:
        emit_json(job)
    else:
        say(f"{job_id} is {job['status']} again. Follow it: forgetting jobs watch {job_id}")


@app.command("extend")
def extend(context: typer.Context, job_id: JobId) -> None:
    """Go on from a pilot: queue the rest of its sweep, and print that job's id."""
    session = session_of(context)
    with session.connect() as client:
        job = client.extend(job_id)
    if session.as_json:
        emit_json(job)
    else:
        emit(job["id"])
        total = job["children"]["total"] if job["children"] else 0
        say(f"{total} runs are {job['status']}. Follow them: forgetting jobs watch {job['id']}")


@app.command("delete")
def delete(
    context: typer.Context,
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a finished job with its result and artifacts, for good."""
    session = session_of(context)
    if not agreed(f"Remove {job_id}, its result and artifacts for good?", yes=yes):
        return
    with session.connect() as client:
        client.delete(job_id)
    if session.as_json:
        emit_json({"id": job_id, "deleted": True})
    else:
        say(f"{job_id} is removed.")


@app.command("result")
def result(context: typer.Context, job_id: JobId) -> None:
    """What a finished job measured; --json gives every field."""
    session = session_of(context)
    with session.connect() as client:
        measured = client.result(job_id)
        if session.as_json:
            emit_json(measured)
            return
        if "verdict" in measured:
            show_gate(client.gate(job_id))
            return
    from forgetting_client.command.job_page import result_tables

    show(*result_tables(measured))


@app.command("download")
def download(
    context: typer.Context,
    job_id: JobId,
    name: Annotated[
        str | None, typer.Argument(help="An artifact, or the folder of several; default all.")
    ] = None,
    into: Annotated[Path, typer.Option("--to", help="Folder to write into.")] = Path("."),
) -> None:
    """Fetch artifacts, adapters among them, and check their digests."""
    from forgetting_client.command.fetch import fetch

    session = session_of(context)
    with session.connect() as client:
        written = fetch(client, job_id, name, into)
    if session.as_json:
        emit_json([str(path) for path in written])
    else:
        for path in written:
            emit(str(path))
