"""`forgetting laws …`: list, show, fit; and what a law is asked (`law_questions`)."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forgetting_client.command import law_questions
from forgetting_client.command.law_questions import LawId, Limit, Plot, save_picture
from forgetting_client.command.output import emit_json, say, show
from forgetting_client.command.points_file import picture_path, points_of
from forgetting_client.command.session import session_of

app = typer.Typer(
    help="Scaling laws of forgetting: fit, read, predict, plan, draw.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Metric = Literal["ce_soft", "kl", "ce_hard", "ft_loss"]
Form = Literal["linear", "joint", "joint_lr"]
Base = Annotated[str | None, typer.Option(help="Of runs on this base: name or digest.")]
Trained = Annotated[str | None, typer.Option(help="Trained on this: name or digest.")]
Measured = Annotated[str | None, typer.Option(help="Measured on this: name or digest.")]
Recipe = Annotated[str | None, typer.Option(help="Digest of a recipe.")]
MetricOption = Annotated[Metric, typer.Option(help="Of forgetting; or the fine-tuning loss.")]
FIT_EXAMPLES = """\b
forgetting laws fit --sweep job_… --metric kl
forgetting laws fit --points runs.csv --metric kl --plot law.svg
\b
run,rank,trainable_params,step,ft_loss,kl        the head of such a file
seed-1,8,98304,40,2.41,0.12                      one line per checkpoint
"""


@app.command("list")
def list_laws(
    context: typer.Context,
    form: Annotated[Form | None, typer.Option(help="Only these.")] = None,
    metric: MetricOption = "ce_soft",
    group: Recipe = None,
    base_model: Base = None,
    dataset: Trained = None,
    corpus: Measured = None,
    versions: Annotated[
        bool, typer.Option("--all-versions", help="Also laws that newer points superseded.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """Fitted laws, newest first."""
    session = session_of(context)
    filters: dict[str, str | None] = {
        "form": form,
        "metric": metric,
        "group": group,
        "base_model": base_model,
        "dataset": dataset,
        "corpus": corpus,
    }
    with session.connect() as client:
        laws = list(client.laws(limit=limit, all_versions=versions, **filters))
        pending = [] if session.as_json or versions else client.pending_laws(**filters)
    if session.as_json:
        emit_json(laws)
        return
    from forgetting_client.command.law_page import law_table, pending_line

    if laws:
        show(law_table(laws))
    elif not pending:
        say(f"No laws yet of {metric}; --metric names another kind of forgetting.")
        say("Laws come from finished jobs. A sweep is the way: jobs submit --ranks …")
    for one in pending:
        say(pending_line(one))


@app.command("show")
def show_law(context: typer.Context, law_id: LawId, plot: Plot = None, limit: Limit = None) -> None:
    """A law's formula, coefficients with 95 % intervals, fit, domain, and how far to trust it."""
    session = session_of(context)
    path = picture_path(plot)
    with session.connect() as client:
        law = client.law(law_id)
        if path is not None:
            save_picture(client, law_id, path, limit=limit)
    if session.as_json:
        emit_json(law)
        return
    from forgetting_client.command.law_page import law_page

    show(*law_page(law))


@app.command("fit", epilog=FIT_EXAMPLES)
def fit(
    context: typer.Context,
    points: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Points: .csv with a header line, .jsonl, or .json (a list, or an object with "
            "`points`). - is JSON on stdin.",
        ),
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="The points of this sweep's children.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Points of jobs on this base.")] = None,
    dataset: Trained = None,
    corpus: Measured = None,
    group: Recipe = None,
    metric: MetricOption = "ce_soft",
    form: Annotated[Form | None, typer.Option(help="Default: linear and joint.")] = None,
    burn_in: Annotated[
        int | None,
        typer.Option(min=0, help="Leave out steps below this; default: 20 % of each run."),
    ] = None,
    plot: Plot = None,
    limit: Limit = None,
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
    path = picture_path(plot)
    over: dict[str, Any] = {"filter": chosen} if points is None else points_of(points)
    with session.connect() as client:
        laws = client.fit_law(
            **over, metric=metric, forms=[form] if form else None, burn_in=burn_in
        )
        if path is not None:
            for law in laws:
                save_picture(client, law["id"], of_law(path, laws, law), limit=limit)
    if session.as_json:
        emit_json(laws)
        return
    from forgetting_client.command.judgement_page import verdict_lines
    from forgetting_client.command.law_page import law_table

    show(law_table(laws))
    for law in laws:
        for warning in law["warnings"]:
            say(f"{law['id']}: {warning}")
    for line in dict.fromkeys(line for law in laws for line in verdict_lines(law)):
        say(line)


def of_law(path: Path, laws: list[Any], law: Any) -> Path:
    """`law.svg` for one law; `law-joint.svg`, `law-linear.svg`, … for several."""
    if len(laws) == 1:
        return path
    same = [one["id"] for one in laws if one["form"] == law["form"]]
    mark = law["form"] if len(same) == 1 else f"{law['form']}-{same.index(law['id']) + 1}"
    return path.with_stem(f"{path.stem}-{mark}")


app.command("predict", epilog=law_questions.PREDICT_EXAMPLES)(law_questions.predict)
app.command("plan", epilog=law_questions.PLAN_EXAMPLES)(law_questions.plan)
app.command("plot")(law_questions.plot)
