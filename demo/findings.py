"""What the service answered, and whether everything shown is what it answers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from forgetting_client import ForgettingClient
from forgetting_client.law_wire import Law
from rich.table import Table

from demo.points import Measured, Picture, Predicted, rows
from demo.sweep import Child

KL_LOW, KL_HIGH = 0.05, 1.0
"""Nats: below, nothing was forgotten that could be shown; above, the base was destroyed."""
N_LINE, N_CURVE = 25, 24
"""Points that a curve is drawn through."""


class DemoError(Exception):
    """The demo did not show what it must; the message says what."""


@dataclass(frozen=True)
class Laws:
    linear: Law
    joint: Law


def measured(client: ForgettingClient, children: Sequence[Child]) -> list[Measured]:
    """Every checkpoint of every run, from the results. Raises DemoError where a run failed."""
    failed = [child for child in children if child.status != "succeeded"]
    if failed:
        said = "\n".join(f"rank {c.rank} ({c.job}): {c.error or c.status}" for c in failed)
        raise DemoError(f"{len(failed)} of {len(children)} runs did not succeed.\n{said}")
    return [point for child in children for point in points_of(client, child.job)]


def points_of(client: ForgettingClient, job: str) -> list[Measured]:
    points = []
    for checkpoint in client.result(job)["checkpoints"]:
        forgetting, loss = checkpoint["forgetting"], checkpoint["ft_loss"]["heldout"]
        rank, params, step = (checkpoint[k] for k in ("rank", "trainable_params", "step"))
        if rank is None or params is None or step is None or loss is None:
            raise DemoError(f"{job} has a checkpoint without rank, size, step or held-out loss")
        points.append(
            Measured(
                job=job,
                rank=rank,
                trainable_params=params,
                step=step,
                ft_loss=loss,
                ce_soft=forgetting["ce_soft"]["value"],
                kl=forgetting["kl"]["value"],
                same_top=forgetting["same_top"]["value"],
            )
        )
    return points


def check_range(points: Sequence[Measured]) -> None:
    """Raises DemoError if a run's last checkpoint lies outside KL_LOW to KL_HIGH."""
    last = {point.job: point for point in sorted(points, key=lambda p: p.step)}
    outside = [p for p in last.values() if not KL_LOW <= p.kl <= KL_HIGH]
    if outside:
        said = ", ".join(f"rank {p.rank}: {p.kl:.4f}" for p in outside)
        raise DemoError(f"KL must end within {KL_LOW} and {KL_HIGH} nats, but {said}")


def laws(client: ForgettingClient, points: Sequence[Measured]) -> Laws:
    """The two laws of these very points, from `GET /laws`. Raises DemoError if one is missing."""
    found = {law["form"]: law for law in client.laws(metric="kl") if _is_of(law, points)}
    missing = {"linear", "joint"} - found.keys()
    if missing:
        raise DemoError(f"GET /laws has no {' and no '.join(sorted(missing))} law of the sweep")
    return Laws(linear=found["linear"], joint=found["joint"])


def line(client: ForgettingClient, law: Law) -> list[Predicted]:
    low, high = law["domain"]["ft_loss"]
    return [
        ask(client, law["id"], ft_loss=x, rank=None, step=None)
        for x in np.linspace(low, high, N_LINE).tolist()
    ]


def curve(client: ForgettingClient, law: Law, rank: int) -> list[Predicted]:
    low, high = law["domain"]["step"]
    steps = sorted({round(n) for n in np.geomspace(low, high, N_CURVE).tolist()})
    return [ask(client, law["id"], ft_loss=None, rank=rank, step=n) for n in steps]


def ask(
    client: ForgettingClient,
    law: str,
    *,
    ft_loss: float | None,
    rank: int | None,
    step: int | None,
) -> Predicted:
    answer = client.predict(law, ft_loss=ft_loss, rank=rank, step=step)
    low, high = answer["ci95"] or (None, None)
    return Predicted(
        law=law, value=answer["value"], low=low, high=high, ft_loss=ft_loss, rank=rank, step=step
    )


def check_plotted(client: ForgettingClient, picture: Picture) -> Iterator[int]:
    """Ask the service again for everything that the picture plots; counts what was right.

    Raises DemoError at the first number that is not what it answers.
    """
    dots, curves = rows(picture)
    answers = {job: set(points_of(client, job)) for job in {dot.job for dot in dots}}
    for count, dot in enumerate(dots, start=1):
        if dot not in answers[dot.job]:
            raise DemoError(f"{picture.name} plots {dot}, which is not in the result of {dot.job}")
        yield count
    for count, one in enumerate(curves, start=len(dots) + 1):
        again = ask(client, one.law, ft_loss=one.ft_loss, rank=one.rank, step=one.step)
        if again != one:
            raise DemoError(f"{picture.name} plots {one}, but the law answers {again}")
        yield count


def table(points: Sequence[Measured]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in ("rank", "P", "N", "L_ft", "ce_soft", "kl", "same_top"):
        shown.add_column(name, justify="right")
    ordered = sorted(points, key=lambda p: (p.rank, p.step))
    for i, p in enumerate(ordered):
        ends = i + 1 == len(ordered) or ordered[i + 1].rank != p.rank
        losses = (f"{x:.4f}" for x in (p.ft_loss, p.ce_soft, p.kl))
        numbers = (str(p.rank), f"{p.trainable_params:,}", str(p.step), *losses)
        shown.add_row(*numbers, f"{p.same_top:.3f}", end_section=ends)
    return shown


def equation(law: Law) -> str:
    """The law with its numbers, as in the service's schema."""
    value = {name: c["value"] for name, c in law["coefficients"].items()}
    if law["form"] == "linear":
        slope, shift = -value["c_f_ft"], value["s_f_ft"]
        return f"KL = {slope:.4f} · L_ft {shift:+.4f}"
    sign = "-" if value.get("sign", 1.0) < 0 else ""
    return (
        f"KL = {sign}({value['A']:.4g} · P^-{value['alpha']:.4g} + "
        f"{value['B']:.4g} · N^-{value['beta']:.4g})^{value['rho']:.4g} {value['shift']:+.4f}"
    )


def summary(points: Sequence[Measured], found: Laws) -> dict[str, Any]:
    """For `--json`: every point, and the laws without their own copies of the points."""
    kept = [{k: v for k, v in law.items() if k != "points"} for law in (found.linear, found.joint)]
    return {"points": [asdict(point) for point in points], "laws": kept}


def _is_of(law: Law, points: Sequence[Measured]) -> bool:
    fitted = {(p["run"], p["step"], p["ft_loss"], p.get("kl")) for p in law["points"]}
    return fitted == {(p.job, p.step, p.ft_loss, p.kl) for p in points}
