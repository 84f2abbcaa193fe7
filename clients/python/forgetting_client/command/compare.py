"""`forgetting compare`: adapters on one base side by side."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetting_client.command.faults import USAGE
from forgetting_client.command.output import clean, emit_json, say, show
from forgetting_client.command.session import session_of
from forgetting_client.command.words import NOTHING, interval, number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from forgetting_client.command.side_by_side import Row

EPILOG = "Exit codes: 0 compared, 2 usage or refused, 4 could not measure, 5 incomparable."
INCOMPARABLE = 5


def compare(
    context: typer.Context,
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER…",
            help="JOB, JOB:STEP, adp_…, a folder here or there, 2 to 64; or one job that has "
            "measured them all.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", "--base-model", help="Default: that of the jobs named."),
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", help="Tokens in a window, likewise.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What they were trained on: for the held-out loss.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field of the spec. Repeatable."),
    ] = None,
) -> None:
    """Which of these adapters forgot least, for what they learnt?"""
    from forgetting_client.command.contenders import (
        Incomparable,
        evaluation,
        laws_of,
        measured,
        names_of,
        ready_made,
    )
    from forgetting_client.command.side_by_side import rows

    session = session_of(context)
    given = {"base": base, "corpus": corpus, "context": context_tokens, "dataset": dataset}
    with session.connect() as client:
        job = ready_made(client, adapters, given)
        if job is None:
            if len(adapters) < 2:
                raise typer.BadParameter("give two adapters at least, or a job that measured them")
            try:
                spec = evaluation(client, adapters, overrides=override or [], **given)  # type: ignore[arg-type]
            except Incomparable as error:
                say(f"Incomparable: {error}")
                raise typer.Exit(INCOMPARABLE) from None
            job = measured(client, spec, stream=sys.stderr)
        result = client.result(job["id"])
        if len(result["checkpoints"]) < 2 or not result.get("pairs"):
            say(f"{job['id']} has measured one adapter; name another to compare it with.")
            raise typer.Exit(USAGE)
        known = [*laws_of(client, job)] if job["type"] == "evaluate" else []
    laws = known or [None] * len(result["checkpoints"])
    found = rows(result, names_of(job, result, adapters), laws)
    if session.as_json:
        body = {
            "schema_version": 1,
            "job": job["id"],
            "adapters": [asdict(row) for row in found],
            "pairs": result["pairs"],
            "provenance": result["provenance"],
        }
        emit_json(body)
        return
    show(*page(found, result))


def page(found: "Sequence[Row]", result: Any) -> "list[RenderableType]":
    from rich.text import Text

    from forgetting_client.command.job_page import cell, fit, grid

    names = ("rank", "step", "L_ft", "kl", "ci95", "same_top", "law")
    table = grid("", *names, right=names)
    beside = grid("", "over the best", "ci95", "trade", "adapter", right=("over the best", "ci95"))
    beside.columns[-1].no_wrap = False  # a long name goes on in the next line, whole
    numbers = {row.name: row.index + 1 for row in found}
    least = [row for row in found if row.more_than_best is None]
    for row in sorted(found, key=lambda row: row.kl["value"]):
        more = row.more_than_best
        table.add_row(
            str(row.index + 1),
            number(row.rank),
            number(row.step),
            number(row.heldout),
            number(row.kl["value"]),
            interval(row.kl["ci95"]),
            number(row.same_top["value"]),
            NOTHING if row.law is None else f"{row.law['residual']:+.2g} (z {row.law['z']:+.1f})",
        )
        by = f" by {numbers[row.dominated_by]}" if row.dominated_by else ""
        beside.add_row(
            str(row.index + 1),
            NOTHING if more is None else number(more["value"]),
            NOTHING if more is None else interval(more["ci95"]),
            cell((row.mark or NOTHING) + by),
            Text(clean(row.name), overflow="fold"),
        )
    parts: list[RenderableType] = [table, "", fit(beside), ""]
    parts.append(
        f"{result['n_positions']:,} tokens of {result['n_documents']:,} documents; kl in nats per "
        "token; differences are paired over documents, with 95 % intervals"
    )
    near = [
        row
        for row in found
        if row.more_than_best is not None
        and (row.more_than_best["ci95"] is None or row.more_than_best["ci95"][0] <= 0)
    ]
    if near:
        parts.append(
            f"not told apart from {least[0].name} in kl: " + ", ".join(r.name for r in near)
        )
    if any(row.mark is None for row in found):
        parts.append("trade: unknown without a held-out loss; --dataset measures it")
    else:
        parts.append(
            "trade: dominated is clearly worse than another adapter in both L_ft and kl; best "
            "trade, than none"
        )
    return parts
