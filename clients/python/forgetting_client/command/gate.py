"""`forgetting gate`: one command that lets an adapter ship or stops it."""

import math
from pathlib import Path
from typing import Annotated

import typer

from forgetting_client.command import policy as policies
from forgetting_client.command.session import session_of

EPILOG = (
    "Exit codes: 0 pass or warn, 1 forgets too much, 2 usage or policy error, 3 inconclusive, "
    "4 could not measure, 5 incomparable."
)


def gate(
    context: typer.Context,
    gate_id: Annotated[
        str | None,
        typer.Argument(metavar="GATE", help="gate_…: show one that was asked for before."),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="ADAPTER", help="JOB, JOB:STEP, adp_…, a folder here or there."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", "--base-model", help="Folder name or hub id.")
    ] = None,
    policy: Annotated[
        Path, typer.Option("--policy", "-c", metavar="FILE", help="What it must keep to.")
    ] = policies.DEFAULT,
    local: Annotated[
        bool, typer.Option("--local", help="Measure in this process, without a service.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Then exit 4; 0: as long as it takes."),
    ] = 3600,
    corpus: Annotated[str | None, typer.Option(help="Where the policy names none.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", help="Tokens in a window, likewise.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What it was trained on: for its held-out loss.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field of the spec. Repeatable."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key never queues the same gate twice.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JUnit report.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Markdown report.")
    ] = None,
    summary: Annotated[
        bool | None,
        typer.Option("--summary/--no-summary", help="GitHub's step summary; there by default."),
    ] = None,
    annotate: Annotated[
        bool | None,
        typer.Option("--annotate/--no-annotate", help="GitHub's annotations; there by default."),
    ] = None,
    comment: Annotated[
        bool, typer.Option("--comment/--no-comment", help="One comment on the pull request.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of that comment; default the policy's file name.")
    ] = None,
) -> None:
    """May this adapter ship? Scores as few windows as the verdict takes; the verdict comes last."""
    from forgetting_client.command import github
    from forgetting_client.command.gate_reports import Wanted
    from forgetting_client.command.gate_run import Run

    session = session_of(context)
    in_actions = github.in_actions()
    wanted = Wanted(
        junit=junit,
        markdown=markdown,
        summary=in_actions if summary is None else summary,
        annotate=in_actions if annotate is None else annotate,
        comment=comment,
        name=name or policy.name,
    )
    run = Run(session, wanted, timeout or None, idempotency_key)
    if not math.isfinite(timeout):
        raise typer.BadParameter("must be a number of seconds", param_hint="--timeout")
    if gate_id is not None and (adapter or base or local):
        raise typer.BadParameter("give a gate, or --adapter and --base")
    if local and session.server is not None:
        raise typer.BadParameter("give --local or --server", param_hint="--local")
    if gate_id is None and (adapter is None or base is None):
        raise typer.BadParameter("give --adapter and --base, or a gate that was asked for before")
    wanted.require_writable()
    if gate_id is not None:
        raise typer.Exit(run.show(gate_id))
    assert adapter is not None
    raise typer.Exit(
        run.judge(
            policy,
            adapter=adapter,
            flags={
                "base_model": base,
                "corpus": corpus,
                "context": context_tokens,
                "dataset": dataset,
            },
            overrides=override or [],
            local=local,
        )
    )
