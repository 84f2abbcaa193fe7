"""What a law's picture shows, computed: its points, its curve with intervals, its domain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.asking import Fit, forward
from service.errors import InvalidSpec
from service.laws.predict import Prediction
from service.laws.quantities import Point, after_burn_in
from service.pictures import Dot, Kind, Panel, Picture, Step

N_PLACES = 48
"""Places at which a curve is drawn; between them it is straight within a pixel."""
BEYOND = 0.25
"""How far a curve goes on after the last fitted point, in widths of the domain."""
MOST_CURVES, MOST_PANELS = 8, 4
QUANTITIES = {
    "kl": "forgetting: KL(base ‖ tuned), nats per token",
    "ce_soft": "forgetting: soft cross-entropy, nats per token",
    "ce_hard": "forgetting: cross-entropy with the base's top token, nats per token",
    "ft_loss": "fine-tuning loss on held-out rows, nats per token",
}
NAMES = {"linear": "Linear", "joint": "Joint", "joint_lr": "Learning-rate"}
Rows = Sequence[Mapping[str, Any]]


def picture_of(
    body: Mapping[str, Any], law: Fit, *, kind: Kind | None = None, limit: float | None = None
) -> Picture:
    """`kind` null: over the loss for a line, over the steps for the others.

    Raises InvalidSpec for a kind that the form does not have.
    """
    own: Kind = "loss" if body["form"] == "linear" else "steps"
    if kind is not None and kind != own:
        said = f"a law of form {body['form']} is drawn over {own}"
        raise InvalidSpec(said, param="kind")
    rows: Rows = body["points"]
    named = series_of(rows)
    x, x_title, domain = _axis(body)
    panels = _line(body, law, rows, named) if own == "loss" else _curves(body, law, rows, named, x)
    return Picture(
        title=f"{NAMES[body['form']]} law of {body['metric']}{_subject(body)}",
        subtitle=[_fit_line(body), *_notes(body, rows, panels)],
        x_title=x_title,
        y_title=QUANTITIES[body["metric"]],
        series=list(dict.fromkeys(named.values())),
        series_title="LoRA rank" if _ranked(rows) else "parameters",
        panels=panels,
        domain=domain,
        limit=limit,
        name_curves=own == "steps",
    )


def series_of(rows: Rows) -> dict[int, str]:
    """A name for each number of parameters, ascending: its rank, where that is one."""
    ranks: dict[int, set[int | None]] = {}
    for row in rows:
        ranks.setdefault(row["trainable_params"], set()).add(row.get("rank"))
    named = {}
    for params in sorted(ranks):
        (rank, *more) = ranks[params]
        named[params] = f"P {params:,}" if rank is None or more else f"r {rank}"
    return named


def bend(rows: Rows, metric: str) -> float:
    """How far a parabola through the points leaves its own chord over their range of ft_loss, nats;
    positive where the points sag below the line's middle."""
    x = np.array([row["ft_loss"] for row in rows], dtype=np.float64)
    y = np.array([row[metric] for row in rows], dtype=np.float64)
    if len(np.unique(x)) < 3:
        return 0.0
    centred = (x - x.mean()) / np.ptp(x)
    return float(np.polyfit(centred, y, 2)[0]) / 4.0


def _line(body: Mapping[str, Any], law: Fit, rows: Rows, named: Mapping[int, str]) -> list[Panel]:
    low, high = body["domain"]["ft_loss"]
    dots = _dots(body, rows, named, "ft_loss")
    first = min(low, *(dot.x for dot in dots))
    last = max(high, *(dot.x for dot in dots))
    room = BEYOND / 2 * (high - low)
    places = _places(first - room, last + room, low, high)
    # A loss below zero is none.
    return [Panel(dots, _along(places, "", lambda x: forward(law, ft_loss=max(x, 0.0)), low, high))]


def _curves(
    body: Mapping[str, Any], law: Fit, rows: Rows, named: Mapping[int, str], x: str
) -> list[Panel]:
    low, high = _axis(body)[2]
    counts = [row[x] for row in rows if row.get(x) is not None]
    places = _places(min(counts), high + BEYOND * (high - low), low, high)
    rates: list[float | None] = [None]
    if body["form"] == "joint_lr" and x == "step":
        rates = list(_some(sorted({row["learning_rate"] for row in rows}), MOST_PANELS))
    panels = []
    for rate in rates:
        shown = [row for row in rows if rate is None or row["learning_rate"] == rate]
        asked = {} if rate is None else {"learning_rate": rate}
        curves: list[Step] = []
        for params in _some(sorted({row["trainable_params"] for row in shown}), MOST_CURVES):

            def at(place: float, params: int = params, asked: dict[str, Any] = asked) -> Prediction:
                return forward(law, trainable_params=params, **{x: place}, **asked)

            curves += _along(places, named[params], at, low, high)
        title = "" if rate is None else f"learning rate {rate:g}"
        panels.append(Panel(_dots(body, shown, named, x), curves, title))
    return panels


def _along(
    places: Sequence[float],
    series: str,
    at: Callable[[float], Prediction],
    low: float,
    high: float,
) -> list[Step]:
    """The curve in up to three parts; neighbouring parts share the place where they meet."""
    steps = []
    for place in places:
        found = at(place)
        ci95, pi95 = found.ci95 or (None, None), found.pi95 or (None, None)
        parts = {-1: place <= low, 0: low <= place <= high, 1: place >= high}
        steps += [
            Step(place, found.value, series, part, *ci95, *pi95)
            for part, holds in parts.items()
            if holds
        ]
    return steps


def _dots(body: Mapping[str, Any], rows: Rows, named: Mapping[int, str], x: str) -> list[Dot]:
    metric, out = body["metric"], left_out(body)
    return [
        Dot(row[x], row[metric], named[row["trainable_params"]], row["run"], fitted=not out(row))
        for row in rows
        if row.get(metric) is not None and row.get(x) is not None
    ]


def left_out(body: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the fit left a point out as warm-up."""
    points = [Point(**row) for row in body["points"]]
    kept = after_burn_in(points, body["provenance"]["burn_in"])
    fitted = {(point.run, point.trainable_params, point.step) for point in kept}
    return lambda row: (row["run"], row["trainable_params"], row["step"]) not in fitted


def _axis(body: Mapping[str, Any]) -> tuple[str, str, tuple[float, float]]:
    """Field, title and fitted span of the x axis."""
    if body["form"] == "linear":
        low, high = body["domain"]["ft_loss"]
        return "ft_loss", "fine-tuning loss on held-out rows, nats per token", (low, high)
    across = body.get("across") or {}
    if across.get("exposure") == "delta_norm":
        low, high = across["delta_norm"]
        return "delta_norm", "norm of the update, ‖ΔW‖", (low, high)
    low, high = body["domain"]["step"]
    return "step", "update steps", (low, high)


def _places(first: float, last: float, low: float, high: float) -> list[float]:
    even = np.linspace(first, last, N_PLACES).tolist()
    return sorted({*even, float(low), float(high)})


def _some(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, with both ends."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _ranked(rows: Rows) -> bool:
    return all(name.startswith("r ") for name in series_of(rows).values())


def _subject(body: Mapping[str, Any]) -> str:
    recipe = body["recipe"] or {}
    if "base_model" not in recipe:
        return ", points by hand"
    return f", {recipe['base_model']} on {recipe.get('dataset', 'its dataset')}"


def _fit_line(body: Mapping[str, Any]) -> str:
    said = f"R² {body['r2']:.3f}, RMSE {body['rmse']:.2g} nats over {body['n_points']} checkpoints"
    said += f" of {body['n_runs']} runs"
    n_out = body["provenance"]["left_out"]["burn_in"]
    return said + (f"; {n_out} of the warm-up, hollow, left out." if n_out else ".")


def _notes(body: Mapping[str, Any], rows: Rows, panels: Sequence[Panel]) -> list[str]:
    banded = any(step.low is not None for panel in panels for step in panel.curves)
    drawn = "Band: 95 % for the curve" if banded else "No band: too few runs"
    beyond = "Grey and broken: beyond the fitted points."
    if body["form"] != "linear":
        return [f"{drawn}. {beyond}"]
    metric, out = body["metric"], left_out(body)
    kept = [row for row in rows if row.get(metric) is not None and not out(row)]
    sag = bend(kept, metric)
    how = "sags below" if sag > 0 else "bulges above"
    return [
        f"{drawn}{', paler for a new run' if banded else ''}. {beyond}",
        f"Thin: each run. The cloud {how} its chord by {abs(sag):.2g} nats.",
    ]
