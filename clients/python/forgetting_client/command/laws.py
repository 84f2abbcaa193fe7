"""`forgetting laws …`: list, show, predict, fit."""

from typing import Annotated, Literal

import typer

from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.session import session_of
from forgetting_client.command.spec import read_points

app = typer.Typer(
    help="Scaling laws of forgetting: fit, read, predict.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LawId = Annotated[str, typer.Argument(metavar="LAW", help="law_…")]
Metric = Literal["ce_soft", "kl", "ce_hard"]
Form = Literal["linear", "joint"]


@app.command("list")
def list_laws(
    context: typer.Context,
    form: Annotated[Form | None, typer.Option()] = None,
    metric: Annotated[Metric, typer.Option(help="Of forgetting.")] = "ce_soft",
    group: Annotated[str | None, typer.Option(help="Digest of a recipe.")] = None,
    base_model: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """Fitted laws, newest first."""
    session = session_of(context)
    filters = {"form": form, "metric": metric, "group": group, "base_model": base_model}
    with session.connect() as client:
        laws = list(client.laws(limit=limit, **filters))
        pending = [] if session.as_json else client.pending_laws(**filters)
    if session.as_json:
        emit_json(laws)
        return
    from forgetting_client.command.law_page import law_table, pending_line

    if laws:
        show(law_table(laws))
    elif not pending:
        say("No laws yet: they come from finished jobs. A sweep is the way: jobs submit --ranks …")
    for one in pending:
        say(pending_line(one))


@app.command("show")
def show_law(context: typer.Context, law_id: LawId) -> None:
    """A law's formula, coefficients with 95 % intervals, fit and domain."""
    session = session_of(context)
    with session.connect() as client:
        law = client.law(law_id)
    if session.as_json:
        emit_json(law)
        return
    from forgetting_client.command.law_page import law_page

    show(*law_page(law))


@app.command("fit")
def fit(
    context: typer.Context,
    points: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help='JSON: a list of points, or {"points": [...]}.'),
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="The points of this sweep's children.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Points of jobs on this base.")] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    corpus: Annotated[str | None, typer.Option()] = None,
    group: Annotated[str | None, typer.Option(help="Digest of a recipe.")] = None,
    metric: Annotated[Metric, typer.Option()] = "ce_soft",
    form: Annotated[Form | None, typer.Option(help="Default: both.")] = None,
) -> None:
    """Fit laws over points from a file, or over the stored jobs that match."""
    session = session_of(context)
    wanted = {
        "sweep": sweep,
        "base_model": base_model,
        "dataset": dataset,
        "corpus": corpus,
        "group": group,
    }
    chosen = {name: value for name, value in wanted.items() if value is not None}
    if (points is None) == (not chosen):
        raise typer.BadParameter("give either --points, or which stored jobs, such as --sweep JOB")
    with session.connect() as client:
        laws = client.fit_law(
            points=read_points(points) if points is not None else None,
            filter=chosen or None,
            metric=metric,
            forms=[form] if form else ["linear", "joint"],
        )
    if session.as_json:
        emit_json(laws)
        return
    from forgetting_client.command.law_page import law_table

    show(law_table(laws))
    for law in laws:
        for warning in law["warnings"]:
            say(f"{law['id']}: {warning}")


@app.command("predict")
def predict(
    context: typer.Context,
    law_id: LawId,
    rank: Annotated[int | None, typer.Option(help="LoRA rank.")] = None,
    params: Annotated[int | None, typer.Option(help="Trainable parameters, P.")] = None,
    step: Annotated[int | None, typer.Option(help="Optimiser updates, N.")] = None,
    ft_loss: Annotated[float | None, typer.Option(help="Held-out loss, of a linear law.")] = None,
) -> None:
    """Forgetting to expect: --rank (or --params) and --step of a joint law, --ft-loss of a
    linear one."""
    session = session_of(context)
    with session.connect() as client:
        prediction = client.predict(
            law_id, rank=rank, trainable_params=params, step=step, ft_loss=ft_loss
        )
    if session.as_json:
        emit_json(prediction)
        return
    from forgetting_client.command.law_page import prediction_lines

    for line in prediction_lines(prediction):
        emit(line)
    for warning in prediction["warnings"]:
        say(f"warning: {warning}")
