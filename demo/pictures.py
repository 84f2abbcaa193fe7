"""The paper's two pictures, as PNG and as HTML that needs no network.

Every row plotted is a `Measured` or a `Predicted` as it was given; only titles are computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import altair as alt
import numpy as np
import vl_convert

from demo.points import Measured, Picture, Predicted

FORGETTING = "forgetting: KL(base ‖ tuned), nats per token"
COLOURS = ["#5ec3b7", "#2f8fc4", "#4355b8", "#7b2f8f", "#c22f6b", "#e8743b", "#e0ac2b", "#7a8288"]
INK, GREY = "#24292f", "#6e7781"
PNG_SCALE = 2.0


def against_loss(points: Sequence[Measured], line: Sequence[Predicted], *, r2: float) -> Picture:
    """Forgetting over held-out fine-tuning loss, with the linear law."""
    x = _x("ft_loss", "fine-tuning loss on held-out rows, nats per token")
    law = alt.Chart(_data(line))
    layers = [
        law.mark_area(opacity=0.14, color=INK).encode(x, _y("low"), alt.Y2("high:Q")),
        law.mark_line(color=INK, strokeWidth=2).encode(x, _y("value")),
        _threads(points, x),
        _dots(points, x),
        *_labels([run[-1] for run in _runs(points)], "kl", x, _colour(points), dy=-14),
    ]
    said = [_counts(points, "Line: the linear law with its 95 % band", r2)]
    said += equal_loss_finding(points, line)
    return Picture(
        "forgetting-against-loss", _chart(layers, loss_finding(points, r2), said).to_dict()
    )


def against_steps(points: Sequence[Measured], curves: Sequence[Predicted], *, r2: float) -> Picture:
    """Forgetting over update steps, one curve of the joint law per rank."""
    x = _x("step", "update steps")
    last = max(curve.step or 0 for curve in curves)
    ends = [curve for curve in curves if curve.step == last]
    layers = [
        alt.Chart(_data(curves)).mark_line(strokeWidth=2).encode(x, _y("value"), _colour(points)),
        _dots(points, x),
        *_labels(ends, "value", x, _colour(points), dx=11, align="left"),
    ]
    said = [_counts(points, "Curves: the joint law", r2)]
    return Picture(
        "forgetting-against-steps", _chart(layers, steps_finding(points), said).to_dict()
    )


def loss_finding(points: Sequence[Measured], r2: float) -> str:
    """What the first picture shows, whichever way the measurements fell."""
    ordered = sorted(points, key=lambda p: p.ft_loss)
    half = len(ordered) // 2
    lower, upper = _mean(ordered[:half]), _mean(ordered[-half:])
    if r2 < 0.5:
        return f"Fine-tuning loss alone does not tell forgetting here: R² {r2:.2f}"
    how = "more" if lower > upper else "less"
    close = "close to" if r2 >= 0.9 else "roughly along"
    return f"The better it fits the new task, the {how} it forgot, {close} a straight line"


def equal_loss_finding(points: Sequence[Measured], line: Sequence[Predicted]) -> list[str]:
    """Whether rank still tells something once the loss is known: the mean distance from the line,
    said only where it goes one way over all ranks."""
    at, value = [p.ft_loss or 0.0 for p in line], [p.value for p in line]
    distance = {
        run[0].rank: float(np.mean([p.kl - np.interp(p.ft_loss, at, value) for p in run]))
        for run in _runs(points)
    }
    ranks, means = list(distance), list(distance.values())
    if means == sorted(means, reverse=True):
        how = "less"
    elif means == sorted(means):
        how = "more"
    else:
        return []
    ends = f"r {ranks[0]} lies {means[0]:+.3f} and r {ranks[-1]} {means[-1]:+.3f} nats"
    return [f"At equal loss larger ranks forgot {how}: {ends} from the line on average."]


def steps_finding(points: Sequence[Measured]) -> str:
    """What the second picture shows: whether forgetting grew with steps and with rank."""
    runs = _runs(points)
    n_grew = sum(run[-1].kl > run[0].kl for run in runs)
    if n_grew == len(runs):
        steps = "Every rank forgot more at each checkpoint" if _steady(runs) else ""
        steps = steps or "Every rank forgot more by the end than at the start"
    else:
        steps = f"{n_grew} of {len(runs)} ranks forgot more by the end than at the start"
    final = [run[-1].kl for run in runs]
    if final == sorted(final):
        return f"{steps}, and larger ranks forgot more"
    if final == sorted(final, reverse=True):
        return f"{steps}, and larger ranks forgot less"
    return f"{steps}; rank made no steady difference"


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write NAME.png and NAME.html; the page carries its own JavaScript."""
    folder.mkdir(parents=True, exist_ok=True)
    png, html = folder / f"{picture.name}.png", folder / f"{picture.name}.html"
    png.write_bytes(vl_convert.vegalite_to_png(picture.spec, scale=PNG_SCALE))
    html.write_text(vl_convert.vegalite_to_html(picture.spec, bundle=True), encoding="utf-8")
    return [png, html]


def _threads(points: Sequence[Measured], x: alt.X) -> alt.Chart:
    """A thin line through each run in the order of its steps."""
    chart = alt.Chart(_data(points)).mark_line(strokeWidth=1, opacity=0.4, strokeDash=[3, 3])
    return cast(alt.Chart, chart.encode(x, _y("kl"), _colour(points), order="step:Q"))


def _dots(points: Sequence[Measured], x: alt.X) -> alt.Chart:
    tips = [alt.Tooltip(f"{name}:N") for name in ("rank", "step", "trainable_params", "job")]
    tips += [
        alt.Tooltip(f"{name}:Q", format=".4f") for name in ("ft_loss", "kl", "ce_soft", "same_top")
    ]
    mark: dict[str, Any] = {
        "filled": True,
        "size": 72,
        "opacity": 1,
        "stroke": "white",
        "strokeWidth": 1,
    }
    chart = alt.Chart(_data(points)).mark_point(**mark)
    return cast(alt.Chart, chart.encode(x, _y("kl"), _colour(points), tooltip=tips))


def _labels(
    ends: Sequence[Measured] | Sequence[Predicted],
    field: str,
    x: alt.X,
    colour: alt.Color,
    **where: Any,
) -> Iterator[alt.Chart]:
    """The rank beside each run's end, so that the eye need not travel to the legend."""
    chart = alt.Chart(_data(ends)).transform_calculate(label="'r ' + datum.rank")
    text = {"fontSize": 12, "fontWeight": 600} | where
    halo = text | {"stroke": "white", "strokeWidth": 4, "strokeJoin": "round", "color": "white"}
    yield chart.mark_text(**halo).encode(x, _y(field), text="label:N")
    yield chart.mark_text(**text).encode(x, _y(field), colour, text="label:N")


def _x(field: str, title: str) -> alt.X:
    axis = alt.Axis(tickCount=9, labelFlush=False)
    return alt.X(f"{field}:Q", title=title, axis=axis).scale(zero=False, nice=True, padding=12)


def _y(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=FORGETTING).scale(nice=True)


def _colour(points: Sequence[Measured]) -> alt.Color:
    ranks = sorted({p.rank for p in points})
    legend = alt.Legend(title="LoRA rank", symbolType="circle", symbolSize=90, symbolOpacity=1)
    return alt.Color("rank:O", legend=legend).scale(domain=ranks, range=COLOURS[: len(ranks)])


def _chart(layers: list[alt.Chart], title: str, subtitle: list[str]) -> alt.LayerChart:
    heading = alt.TitleParams(title, subtitle=subtitle, anchor="start", offset=16)
    chart = alt.layer(*layers).properties(title=heading, width=640, height=400, padding=20)
    configured = (
        chart.configure(background="white", font="Liberation Sans, Helvetica, Arial, sans-serif")
        .configure_title(
            fontSize=18, fontWeight=600, color=INK, subtitleFontSize=13, subtitleColor=GREY
        )
        .configure_axis(
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
            labelColor=GREY,
            titleColor=INK,
            titlePadding=12,
            gridColor="#eaeef2",
            domainColor="#afb8c1",
            tickColor="#afb8c1",
        )
        .configure_legend(labelFontSize=12, titleFontSize=12, titleColor=INK, labelColor=INK)
        .configure_view(stroke=None)
    )
    return cast(alt.LayerChart, configured)


def _counts(points: Sequence[Measured], law: str, r2: float) -> str:
    runs = len(_runs(points))
    return f"{law}, R² {r2:.3f}. Dots: {len(points)} checkpoints of {runs} runs, all measured."


def _data(items: Sequence[Measured] | Sequence[Predicted]) -> alt.InlineData:
    return alt.InlineData(values=[asdict(item) for item in items])


def _runs(points: Sequence[Measured]) -> list[list[Measured]]:
    """By rank, each in the order of its steps."""
    jobs = dict.fromkeys(p.job for p in sorted(points, key=lambda p: p.rank))
    return [sorted((p for p in points if p.job == job), key=lambda p: p.step) for job in jobs]


def _steady(runs: list[list[Measured]]) -> bool:
    return all(a.kl < b.kl for run in runs for a, b in pairwise(run))


def _mean(points: Sequence[Measured]) -> float:
    return sum(p.kl for p in points) / len(points)
