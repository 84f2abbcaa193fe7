"""What a law is asked: `forgetting laws predict | plan | plot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.points_file import picture_path
from forgetting_client.command.session import session_of
from forgetting_client.command.spec import numbers

if TYPE_CHECKING:  # help waits for no HTTP library
    from forgetting_client.client import ForgettingClient

LawId = Annotated[str, typer.Argument(metavar="LAW", help="law_…")]
Plot = Annotated[
    str | None, typer.Option(metavar="FILE.svg|FILE.png", help="Also write the law's picture.")
]
Limit = Annotated[
    float | None,
    typer.Option("--max-forgetting", help="A line in the picture at so many nats per token."),
]
Rank = Annotated[int | None, typer.Option(help="LoRA rank.")]
Params = Annotated[int | None, typer.Option(help="Trainable parameters, P.")]
Rate = Annotated[float | None, typer.Option(help="Peak, of a joint_lr law.")]

PREDICT_EXAMPLES = """\b
forgetting laws predict law_… --rank 64 --step 500
forgetting laws predict law_… --rank 64 --max-forgetting 0.3    up to which step?
forgetting laws predict law_… --ft-loss 2.1                     of a linear law
"""
PLAN_EXAMPLES = """\b
forgetting laws plan law_… --max-loss 2.1 --ranks 8,16,32
forgetting laws plan law_… --max-forgetting 0.3
"""


def predict(
    context: typer.Context,
    law_id: LawId,
    rank: Rank = None,
    params: Params = None,
    step: Annotated[int | None, typer.Option(help="Optimiser updates, N.")] = None,
    learning_rate: Rate = None,
    delta_norm: Annotated[
        float | None, typer.Option(help="Norm of the update, of a joint_lr law that asks for it.")
    ] = None,
    ft_loss: Annotated[float | None, typer.Option(help="Held-out loss, of a linear law.")] = None,
    max_forgetting: Annotated[
        float | None, typer.Option(help="Asked backwards: stay at or below so many nats.")
    ] = None,
    plot: Plot = None,
) -> None:
    """Forgetting to expect: --rank (or --params) and --step of a joint law, --ft-loss of a
    linear one. With --max-forgetting: the largest step for --rank, the largest rank for --step."""
    session = session_of(context)
    path = picture_path(plot)
    with session.connect() as client:
        if max_forgetting is None:
            prediction = client.predict(
                law_id,
                rank=rank,
                trainable_params=params,
                step=step,
                learning_rate=learning_rate,
                delta_norm=delta_norm,
                ft_loss=ft_loss,
            )
        else:
            if ft_loss is not None or delta_norm is not None:
                raise typer.BadParameter("--max-forgetting goes with --rank, --params or --step")
            inverse = client.furthest(
                law_id,
                max_forgetting=max_forgetting,
                rank=rank,
                trainable_params=params,
                step=step,
                learning_rate=learning_rate,
            )
        if path is not None:
            save_picture(client, law_id, path, limit=max_forgetting)
    if session.as_json:
        emit_json(prediction if max_forgetting is None else inverse)
        return
    from forgetting_client.command import law_page

    if max_forgetting is not None:
        for line in law_page.inverse_lines(inverse):
            emit(line)
        return
    for line in law_page.prediction_lines(prediction):
        emit(line)
    for warning in prediction["warnings"]:
        say(f"warning: {warning}")


def plan(
    context: typer.Context,
    law_id: LawId,
    max_loss: Annotated[
        float | None, typer.Option(help="Reach this held-out fine-tuning loss or less.")
    ] = None,
    max_forgetting: Annotated[
        float | None, typer.Option(help="Forget at most so many nats per token.")
    ] = None,
    ranks: Annotated[str | None, typer.Option(help="8,16,32; default: the measured ones.")] = None,
    max_step: Annotated[int | None, typer.Option(help="Default: the last measured step.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many options.")] = None,
) -> None:
    """Which rank and how many steps: the least forgetting that reaches a loss, or the lowest loss
    within a limit of forgetting."""
    if max_loss is None and max_forgetting is None:
        raise typer.BadParameter("give --max-loss, --max-forgetting or both")
    session = session_of(context)
    with session.connect() as client:
        found = client.plan(
            law_id,
            max_ft_loss=max_loss,
            max_forgetting=max_forgetting,
            ranks=None if ranks is None else numbers(ranks, "--ranks", int),
            max_step=max_step,
            limit=limit,
        )
    if session.as_json:
        emit_json(found)
        return
    from forgetting_client.command.law_page import plan_table

    if found["options"]:
        show(plan_table(found))
    say(found["answer"])


def plot(
    context: typer.Context,
    law_id: LawId,
    file: Annotated[
        str, typer.Argument(metavar="FILE.svg|FILE.png", help="The name says which format.")
    ],
    kind: Annotated[
        Literal["loss", "steps"] | None, typer.Option(help="Default: what the form is drawn over.")
    ] = None,
    limit: Limit = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
) -> None:
    """Write the law's picture: data, fit, 95 % band, and in grey what lies beyond the points."""
    path = picture_path(file, "FILE")
    assert path is not None
    session = session_of(context)
    with session.connect() as client:
        save_picture(client, law_id, path, kind=kind, limit=limit, width=width)
    if session.as_json:
        emit_json({"file": str(path), "bytes": path.stat().st_size})


def save_picture(
    client: "ForgettingClient",
    law_id: str,
    path: Path,
    *,
    kind: Literal["loss", "steps"] | None = None,
    limit: float | None = None,
    width: int | None = None,
) -> None:
    form = cast(Literal["svg", "png"], path.suffix.lower().removeprefix("."))
    path.write_bytes(client.law_plot(law_id, form, kind=kind, limit=limit, width=width))
    say(f"Picture: {path}")
