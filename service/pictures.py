"""A law's picture from plain values: Vega-Lite, rendered to SVG or PNG without network or browser.

Marks, from back to front: what lies outside the fitted points in grey, 95 % bands, curves (broken
outside), measured dots (hollow where the fit left them out), the limit.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

Kind = Literal["loss", "steps"]
Json = dict[str, Any]

VIRIDIS = ("#440154", "#414487", "#2a788e", "#22a884", "#5fb548")
"""Told apart by every kind of colour vision and in grey; its pale end is left out."""
INK, GREY, OUTSIDE, LIMIT = "#24292f", "#6e7781", "#8c959f", "#c4320a"
FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
PNG_SCALE = 2.0
ALONG: Json = {"field": "x", "type": "quantitative"}
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LABEL_PIXELS = 13.0
"""Least distance between two labels at the ends of curves."""


@dataclass(frozen=True)
class Dot:
    """One measured checkpoint."""

    x: float
    y: float
    series: str
    run: str
    fitted: bool = True


@dataclass(frozen=True)
class Step:
    """One place of a curve; low and high bound the curve, new_low and new_high a new run."""

    x: float
    y: float
    series: str
    part: int
    """0 inside the fitted points, -1 before and 1 after them."""
    low: float | None = None
    high: float | None = None
    new_low: float | None = None
    new_high: float | None = None


@dataclass(frozen=True)
class Panel:
    dots: Sequence[Dot]
    curves: Sequence[Step]
    title: str = ""


@dataclass(frozen=True)
class Picture:
    title: str
    subtitle: Sequence[str]
    x_title: str
    y_title: str
    series: Sequence[str]
    """Their names in order, e.g. of rank."""
    series_title: str
    panels: Sequence[Panel]
    domain: tuple[float, float]
    """Where the fitted points lie on the x axis."""
    limit: float | None = None
    name_curves: bool = True
    """The name of each series at its curve's end; else a legend for the dots."""


def render(picture: Picture, form: Literal["svg", "png"], *, width: int) -> bytes:
    """SVG text as UTF-8, or PNG at twice `width` pixels."""
    # Here and not above: the library is 90 MB and most processes never draw.
    import vl_convert

    spec = vega_lite(picture, width=width)
    if form == "svg":
        return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
    return vl_convert.vegalite_to_png(spec, scale=PNG_SCALE, allowed_base_urls=[])


def vega_lite(picture: Picture, *, width: int) -> Json:
    """The picture as a Vega-Lite specification, `width` pixels wide in all.

    Of what XML has no place for, the renderer would end the whole process: it is replaced.
    """
    title, *subtitle = (NOT_XML.sub("\ufffd", s) for s in (picture.title, *picture.subtitle))
    heading = {"text": title, "subtitle": subtitle, "anchor": "start"}
    height = max(260, round((0.55 if len(picture.panels) == 1 else 0.42) * width))
    spec: Json = {
        "description": title,
        "title": heading | {"offset": 14},
        "background": "white",
        "config": _config(),
    }
    layers = [_layers(picture, panel, height) for panel in picture.panels]
    if len(layers) == 1:
        fit = {"type": "fit", "contains": "padding"}
        return spec | {"width": width, "height": height, "autosize": fit, "layer": layers[0]}
    across = max(160, width // len(layers) - 70)
    shown = zip(picture.panels, layers, strict=True)
    return spec | {
        "hconcat": [
            {
                "title": {"text": panel.title, "fontSize": 13},
                "width": across,
                "height": height,
                "layer": layer,
            }
            for panel, layer in shown
        ]
    }


def _layers(picture: Picture, panel: Panel, height: int) -> list[Json]:
    """Back to front; a law of the loss, which runs through its dots, is drawn over them."""
    x, y, colour = _x(picture), _y(picture), _colour(picture)
    curves = _curves(panel, x, y, colour if picture.name_curves else {"value": INK})
    dots = _dots(panel, x, y, colour, threads=not picture.name_curves)
    layers = [_outside(picture, x), *_bands(panel, x, y, colour, inked=not picture.name_curves)]
    layers += [*curves, *dots] if picture.name_curves else [*dots, *curves]
    if picture.limit is not None:
        layers += _limit(picture, x, y)
    if picture.name_curves:
        layers.append(_names(picture, panel, x, y, colour, height))
    return layers


def _bands(panel: Panel, x: Json, y: Json, colour: Json, *, inked: bool) -> list[Json]:
    layers = []
    shown = (
        (("new_low", "new_high", 0.1), ("low", "high", 0.2)) if inked else (("low", "high", 0.2),)
    )
    for low, high, opacity in shown:
        steps = [asdict(step) for step in panel.curves if getattr(step, low) is not None]
        if steps:
            area = {"type": "area", "opacity": opacity, "clip": True}
            ends = {"y": y | {"field": low}, "y2": {"field": high}, "detail": {"field": "series"}}
            hue = {"value": INK} if inked else colour
            layers.append(_layer(steps, area, {"x": x, "color": hue} | ends))
    return layers


def _curves(panel: Panel, x: Json, y: Json, colour: Json) -> list[Json]:
    layers = []
    for inside, dash in ((True, []), (False, [6, 4])):
        steps = [asdict(step) for step in panel.curves if (step.part == 0) == inside]
        if steps:
            line = {"type": "line", "strokeWidth": 2, "strokeDash": dash, "clip": True}
            detail = [{"field": "series"}, {"field": "part"}]
            along = {"x": x, "y": y, "color": colour, "detail": detail, "order": ALONG}
            layers.append(_layer(steps, line, along))
    return layers


def _dots(panel: Panel, x: Json, y: Json, colour: Json, *, threads: bool) -> list[Json]:
    dots = [asdict(dot) for dot in panel.dots]
    at = {"x": x, "y": y, "color": colour}
    layers = []
    if threads:
        thread = {"type": "line", "strokeWidth": 1, "opacity": 0.45}
        by_run = {"detail": {"field": "run"}, "order": ALONG}
        layers.append(_layer(dots, thread, at | by_run))
    for fitted in (False, True):
        drawn = [dot for dot in dots if dot["fitted"] == fitted]
        if drawn:
            mark: Json = {"type": "point", "size": 60 if len(dots) < 60 else 40, "opacity": 1}
            mark |= {"stroke": "white", "strokeWidth": 0.7} if fitted else {"fill": "white"}
            layers.append(_layer(drawn, mark | {"filled": fitted}, at))
    return layers


def _outside(picture: Picture, x: Json) -> Json:
    low, high = picture.domain
    first, last = _span(picture)
    ends = [{"x": first, "to": low}, {"x": high, "to": last}]
    mark = {"type": "rect", "color": OUTSIDE, "opacity": 0.2}
    shown = [end for end in ends if end["to"] > end["x"]]
    return _layer(shown, mark, {"x": x, "x2": {"field": "to"}})


def _limit(picture: Picture, x: Json, y: Json) -> list[Json]:
    first, _ = _span(picture)
    rows = [{"x": first, "y": picture.limit, "text": f"limit {picture.limit:g}"}]
    rule = {"type": "rule", "color": LIMIT, "strokeWidth": 1.6, "strokeDash": [2, 2]}
    word = {"type": "text", "color": LIMIT, "align": "left", "dx": 6, "dy": -8, "fontWeight": 600}
    halo = word | {"stroke": "white", "strokeWidth": 4, "color": "white"}
    text = {"x": x, "y": y, "text": {"field": "text"}}
    return [_layer(rows, rule, {"y": y}), _layer(rows, halo, text), _layer(rows, word, text)]


def _names(picture: Picture, panel: Panel, x: Json, y: Json, colour: Json, height: int) -> Json:
    """Each curve's name at its end, moved apart where ends lie close together."""
    ends: dict[str, Step] = {}
    low, high = _reach(picture)
    for step in panel.curves:
        if step.series not in ends or step.x > ends[step.series].x:
            ends[step.series] = step
    at = {name: min(max(step.y, low), high) for name, step in ends.items()}
    least = LABEL_PIXELS * (high - low) / (0.72 * height)
    places = apart(list(at.values()), least, high=high)
    rows = [
        {"x": ends[name].x, "y": place, "series": name}
        for name, place in zip(at, places, strict=True)
    ]
    mark = {"type": "text", "align": "left", "dx": 7, "fontSize": 12, "fontWeight": 600}
    return _layer(rows, mark, {"x": x, "y": y, "color": colour, "text": {"field": "series"}})


def apart(values: Sequence[float], least: float, *, high: float) -> list[float]:
    """Places near the values, in their order, at least `least` apart and none above `high`."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    moved = list(values)
    for one, other in pairwise(order):
        moved[other] = max(moved[other], moved[one] + least)
    for i in reversed(order):
        moved[i] = min(moved[i], high)
        high = moved[i] - least
    return moved


def _layer(rows: list[Json], mark: Json, encoding: Json) -> Json:
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding}


def _x(picture: Picture) -> Json:
    scale = {"domain": list(_span(picture)), "nice": False, "zero": False}
    axis = {"tickCount": 8, "labelFlush": False}
    return {"field": "x", "type": "quantitative", "title": picture.x_title, "scale": scale} | {
        "axis": axis
    }


def _y(picture: Picture) -> Json:
    scale = {"domain": list(_reach(picture)), "nice": False, "zero": False}
    return {"field": "y", "type": "quantitative", "title": picture.y_title, "scale": scale}


def _colour(picture: Picture) -> Json:
    legend = {"title": picture.series_title, "symbolType": "circle", "symbolOpacity": 1}
    colours = shades(len(picture.series))
    scale = {"domain": list(picture.series), "range": colours}
    shown = None if picture.name_curves else legend
    return {"field": "series", "type": "nominal", "scale": scale, "legend": shown, "sort": None}


def _span(picture: Picture) -> tuple[float, float]:
    """Of the x axis: dots and curves, with room for the dots' own size."""
    every = [dot.x for panel in picture.panels for dot in panel.dots]
    every += [step.x for panel in picture.panels for step in panel.curves]
    room = 0.02 * (max(every) - min(every)) or 1.0
    ends = {step.x for panel in picture.panels for step in panel.curves}
    last = max(every)
    return min(every) - room, last if last in ends and picture.name_curves else last + room


def _reach(picture: Picture) -> tuple[float, float]:
    """Of the y axis: dots, curves inside the domain, the limit. A curve that runs off is cut."""
    every = [dot.y for panel in picture.panels for dot in panel.dots]
    every += [step.y for panel in picture.panels for step in panel.curves if step.part == 0]
    every += [] if picture.limit is None else [picture.limit]
    room = 0.08 * (max(every) - min(every)) or 0.1
    return min(every) - room, max(every) + room


def shades(n: int) -> list[str]:
    """n colours evenly along VIRIDIS."""
    if n == 1:
        return [VIRIDIS[2]]
    last = len(VIRIDIS) - 1
    return [_mixed(last * i / (n - 1)) for i in range(n)]


def _mixed(place: float) -> str:
    below = min(int(place), len(VIRIDIS) - 2)
    share = place - below
    pair = [[int(VIRIDIS[i][at : at + 2], 16) for at in (1, 3, 5)] for i in (below, below + 1)]
    mixed = [round(a + share * (b - a)) for a, b in zip(*pair, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _config() -> Json:
    axis = {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"}
    axis |= {"labelColor": GREY, "titleColor": INK, "titlePadding": 10, "gridColor": "#e4e8ec"}
    axis |= {"domainColor": "#afb8c1", "tickColor": "#afb8c1"}
    title = {"fontSize": 17, "fontWeight": 600, "color": INK}
    title |= {"subtitleFontSize": 12, "subtitleColor": GREY, "subtitlePadding": 5}
    legend = {"labelFontSize": 12, "titleFontSize": 12, "titleColor": INK, "labelColor": INK}
    return {"font": FONT, "axis": axis, "title": title, "legend": legend} | {
        "view": {"stroke": None},
        "aria": False,  # a sentence per dot makes the file five times as large
    }
