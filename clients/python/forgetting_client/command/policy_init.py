"""`forgetting policy init`: limits from adapters that are known to be good."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from forgetting_client.command import policy as policies
from forgetting_client.command.output import emit, emit_json, say
from forgetting_client.command.session import session_of

INCOMPARABLE = 5


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    context: typer.Context,
    good: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="ADAPTER",
            help="Known to be good: JOB, JOB:STEP, adp_…, a folder here or there. Repeatable.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", "--base-model", help="Default: that of the jobs named."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = policies.DEFAULT,
    corpus: Annotated[str | None, typer.Option(help="What to measure on.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", help="Tokens in a window.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=1.01, max=100, help="Limit over the worst good adapter.")
    ] = 1.25,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Measure adapters known to be good, and write the policy that they set."""
    from forgetting_client.command.contenders import Incomparable, evaluation, measured
    from forgetting_client.command.limits import limits
    from forgetting_client.command.policy_text import policy_text
    from forgetting_client.command.words import adapter as shown

    to_stdout = str(output) == "-"
    if not to_stdout and output.exists() and not force:
        raise typer.BadParameter(f"{output} is there already; --force replaces it")
    session = session_of(context)
    with session.connect() as client:
        try:
            spec = evaluation(client, good, base=base, corpus=corpus, context=context_tokens)
        except Incomparable as error:
            say(f"Incomparable: {error}")
            raise typer.Exit(INCOMPARABLE) from None
        job = measured(client, spec, stream=sys.stderr)
        result = client.result(job["id"])
    listed = job["spec"]["adapters"]
    names = good if len(good) == len(listed) else [shown(one) for one in listed]
    found = limits(result, margin=margin)
    text = policy_text(result, names, found, evaluation=job["spec"]["evaluation"], margin=margin)
    if to_stdout:
        sys.stdout.write(text)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise typer.BadParameter(f"{output} is there already; --force replaces it") from None
    if session.as_json:
        told = {one.metric: {"worst": one.worst, "limit": one.fail} for one in found}
        emit_json({"file": str(output), "job": job["id"], "limits": told})
        return
    emit(str(output))
    name = job["spec"]["base_model"]
    say(f"Read it, then: forgetting gate --adapter ADAPTER --base {name} -c {output}")
