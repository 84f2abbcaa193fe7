"""`forgetting jobs submit`: a spec from a file or flags, queued; its id on stdout."""

import sys
from typing import Annotated, Any, Literal

import typer

from forgetting_client.command import spec as specs
from forgetting_client.command.adapters import upload_local
from forgetting_client.command.output import emit, emit_json, say
from forgetting_client.command.session import session_of

EXAMPLES = """\b
forgetting jobs submit --base-model BASE --dataset rows.jsonl --rank 16 --watch
forgetting jobs submit --base-model BASE --dataset rows.jsonl --ranks 8,16,32,64,128,256 --pilot
forgetting jobs submit --base-model BASE --adapter job_…:140 --adapter path/to/adapter
"""


def submit(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="SPEC.json|-", help="The job spec; - is stdin.")
    ] = None,
    job_type: Annotated[
        Literal["finetune", "evaluate", "sweep", "gate"] | None,
        typer.Option("--type", help="Default: what the other flags imply."),
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Folder name or hub id.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What to fine-tune on.")] = None,
    corpus: Annotated[str | None, typer.Option(help="What to measure on.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", help="Tokens in a window.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank.")] = None,
    ranks: Annotated[str | None, typer.Option(help="Of a sweep: 4,8,16.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Of a sweep: 17,18,19.")] = None,
    learning_rates: Annotated[
        str | None, typer.Option(help="Of a sweep: 1e-5,5e-5; a law for each.")
    ] = None,
    pilot: Annotated[
        bool,
        typer.Option("--pilot", help="Only a sweep's small ranks and early steps, a fifth of it."),
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Optimiser updates.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak, of the schedule.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADAPTER",
            help="To evaluate: JOB, JOB:STEP, adp_…, a folder here or there. Repeatable.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field: training.seed=3. Repeatable."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label. Repeatable.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key never queues the same job twice.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow the job to its end.")] = False,
) -> None:
    """Queue a job and print its id. Flags win over the file, --set over both."""
    flags: dict[str, Any] = {
        "base_model": base_model,
        "dataset": dataset,
        "corpus": corpus,
        "context": context_tokens,
        "rank": rank,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    swept = any(axis is not None for axis in (ranks, seeds, learning_rates))
    given = (
        source is not None
        or adapter
        or override
        or swept
        or any(v is not None for v in flags.values())
    )
    if not given:
        raise typer.BadParameter("give a spec file, - for stdin, or at least --base-model")
    spec = specs.build(
        specs.read(source) if source is not None else {},
        flags=flags,
        job_type=job_type,
        ranks=ranks,
        seeds=seeds,
        learning_rates=learning_rates,
        pilot=pilot,
        adapters=adapter or [],
        metadata=metadata or [],
        overrides=override or [],
    )
    session = session_of(context)
    with session.connect() as client:
        upload_local(client, spec, adapter)
        job = client.create_job(spec, idempotency_key=idempotency_key)
        if session.as_json:
            emit_json(job, one_line=watch)
        else:
            emit(job["id"])
        from forgetting_client.command.watch import warn_of_no_worker, watch_job

        if watch:
            stream = sys.stdout if session.as_json else sys.stderr
            raise typer.Exit(watch_job(client, job, as_json=session.as_json, stream=stream))
        if not session.as_json:
            say(f"{job['status'].capitalize()}. Follow it: forgetting jobs watch {job['id']}")
            warn_of_no_worker(client)
