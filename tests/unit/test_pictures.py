"""A law's picture: as many dots as points, each in its place; the limit where it belongs."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.asking import fit_of
from service.errors import InvalidSpec
from service.fitting import body_of, fitted
from service.law_picture import bend, picture_of
from service.pictures import LABEL_PIXELS, Picture, apart, render, shades, vega_lite
from service.selection import Selection
from tests.law_points import STEPS, grid, kl_at

Json = dict[str, Any]
PNG = b"\x89PNG\r\n\x1a\n"
LIMIT = 0.9


def body(form: str, points: list[Json], burn_in: int | None = 50) -> Json:
    chosen = Selection(points, "kl", burn_in)
    return body_of(fitted(chosen, form), chosen, judgement=None) | {"id": "law_1"}


def picture(form: str, points: list[Json] | None = None, **options: Any) -> Picture:
    law = body(form, points or grid())
    return picture_of(law, fit_of(law), **options)


def drawn(shown: Picture, width: int = 700) -> ET.Element:
    return ET.fromstring(render(shown, "svg", width=width))


def marks(root: ET.Element, kind: str) -> list[ET.Element]:
    """The drawn elements of one kind of mark, legends and axes left out."""
    return [
        element
        for group in root.iter("{http://www.w3.org/2000/svg}g")
        if group.get("class", "").startswith(f"mark-{kind} role-mark")
        for element in group
    ]


def place(element: ET.Element) -> tuple[float, float]:
    x, y = element.get("transform", "").removeprefix("translate(").rstrip(")").split(",")
    return float(x), float(y)


def straight(values: list[float], pixels: list[float]) -> tuple[float, float]:
    """The axis, from values to pixels, which must be a straight line."""
    slope, offset = np.polyfit(values, pixels, 1)
    assert np.allclose(slope * np.array(values) + offset, pixels, atol=0.05)
    return float(slope), float(offset)


@pytest.mark.parametrize("form", ["linear", "joint"])
def test_every_point_is_a_dot_in_its_place_and_the_limit_too(form: str) -> None:
    points, root = grid(), drawn(picture(form, limit=LIMIT))
    dots = [place(dot) for dot in marks(root, "symbol")]
    assert len(dots) == len(points)
    field = "ft_loss" if form == "linear" else "step"
    warm_up_first = sorted(points, key=lambda p: (p["step"] > 40, p["run"], p["step"]))
    slope_x, _ = straight([p[field] for p in warm_up_first], [x for x, _ in dots])
    slope_y, offset_y = straight([p["kl"] for p in warm_up_first], [y for _, y in dots])
    assert slope_x > 0 > slope_y
    (rule,) = marks(root, "rule")
    assert place(rule)[1] == pytest.approx(slope_y * LIMIT + offset_y, abs=0.05)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"limit {LIMIT}" in texts


def test_no_limit_no_line() -> None:
    assert marks(drawn(picture("joint")), "rule") == []


def test_points_of_the_warm_up_are_hollow() -> None:
    symbols = marks(drawn(picture("joint")), "symbol")
    hollow = [dot for dot in symbols if dot.get("fill") == "white"]
    assert len(hollow) == len([p for p in grid() if p["step"] <= 40])
    shown = picture("joint").panels[0]
    assert {dot.x for dot in shown.dots if not dot.fitted} == {20, 40}


def test_grey_begins_where_the_fitted_points_end() -> None:
    root = drawn(picture("joint"))
    first, last = marks(root, "rect")
    steps = sorted({x for x, _ in map(place, marks(root, "symbol"))})
    assert ends(first)[1] == pytest.approx(steps[STEPS.index(80)], abs=0.1)
    assert ends(last)[0] == pytest.approx(steps[-1], abs=0.1)


def ends(rect: ET.Element) -> tuple[float, float]:
    """Left and right of `Mx,yhWvH…`."""
    start, wide = rect.get("d", "").removeprefix("M").split("v")[0].split("h")
    left = float(start.split(",")[0])
    return left, left + float(wide)


def test_curves_are_the_law_with_its_bands_and_are_not_chords() -> None:
    shown = picture("joint")
    law = body("joint", grid())
    (panel,) = shown.panels
    assert shown.domain == (80, 200)
    one = [step for step in panel.curves if step.series == "r 8"]
    assert {step.part for step in one} == {-1, 0, 1}
    values = {name: c["value"] for name, c in law["coefficients"].items()}
    for step in one:
        total = values["A"] * 8000 ** -values["alpha"] + values["B"] * step.x ** -values["beta"]
        by_hand = values["sign"] * total ** values["rho"] + values["shift"]
        assert step.y == pytest.approx(by_hand, rel=1e-9)
        assert step.low is not None
        assert step.low <= step.y <= (step.high or -1)
    inside = sorted((step.x, step.y) for step in one if step.part == 0)
    middle = np.interp(140, [x for x, _ in inside], [y for _, y in inside])
    chord = (inside[0][1] + inside[-1][1]) / 2
    assert middle - chord > 0.005


def test_a_line_says_how_much_its_points_bend() -> None:
    x = np.linspace(1.0, 3.0, 9)
    rows = [{"ft_loss": float(a), "kl": float(0.5 * (a - 2.0) ** 2 + a)} for a in x]
    # A parabola of curvature 1 over a range of 2 leaves its chord by 1 * 2^2 / 8.
    assert bend(rows, "kl") == pytest.approx(0.5)
    assert bend(rows[:2], "kl") == 0.0
    note = picture("linear").subtitle[-1]
    assert "chord by" in note


def test_one_run_has_no_band_and_says_so() -> None:
    points = [point for point in grid() if point["run"] == "r8-s1"]
    shown = picture("linear", points)
    assert any("No band" in line for line in shown.subtitle)
    assert marks(drawn(shown), "area") == []


def test_a_law_across_rates_has_a_panel_for_each() -> None:
    points = [
        point
        | {"run": f"{point['run']}-{rate:g}", "learning_rate": rate}
        | {"kl": kl_at(point["rank"], point["step"], rate) + 0.001 * (i % 3)}
        for rate in (1e-3, 2e-3)
        for i, point in enumerate(grid())
    ]
    shown = picture("joint_lr", points)
    assert [panel.title for panel in shown.panels] == ["learning rate 0.001", "learning rate 0.002"]
    assert len(marks(drawn(shown), "symbol")) == len(points)


def test_ranks_that_differ_in_parameters_are_named_by_those() -> None:
    points = [point | {"rank": None} for point in grid()]
    assert picture("joint", points).series == ["P 4,000", "P 8,000", "P 16,000", "P 32,000"]
    assert picture("joint").series == ["r 4", "r 8", "r 16", "r 32"]


def test_a_form_is_drawn_over_its_own_axis_alone() -> None:
    assert picture("linear", kind="loss").x_title.startswith("fine-tuning loss")
    with pytest.raises(InvalidSpec, match="drawn over loss") as caught:
        picture("linear", kind="steps")
    assert caught.value.param == "kind"


def test_png_is_twice_the_asked_width() -> None:
    png = render(picture("linear"), "png", width=400)
    assert png.startswith(PNG)
    assert int.from_bytes(png[16:20]) == pytest.approx(800, abs=2)


def test_names_at_the_ends_of_curves_do_not_lie_on_each_other() -> None:
    values = [0.5, 0.5001, 0.9, 0.4999, 0.95]
    moved = apart(values, 0.1, high=1.0)
    assert sorted(range(5), key=moved.__getitem__) == sorted(range(5), key=values.__getitem__)
    gaps = np.diff(sorted(moved))
    assert gaps.min() >= 0.1 - 1e-12
    assert max(moved) <= 1.0
    assert apart([0.1, 0.5], 0.1, high=1.0) == [0.1, 0.5]
    names = marks(drawn(picture("joint")), "text")
    at = sorted(place(name)[1] for name in names)
    assert len(at) == 4
    assert np.diff(at).min() >= LABEL_PIXELS - 3


def test_colours_differ_in_lightness_so_that_grey_and_colour_blind_eyes_tell_them_apart() -> None:
    def light(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return math.sqrt(0.299 * red**2 + 0.587 * green**2 + 0.114 * blue**2)

    lightness = [light(colour) for colour in shades(6)]
    assert lightness == sorted(lightness)
    assert np.diff(lightness).min() > 0.04
    assert max(lightness) < 0.75
    assert len(set(shades(12))) == 12
    assert len(shades(1)) == 1


def test_nothing_is_fetched_and_nothing_loaded_before_a_picture_is_asked_for() -> None:
    spec = str(vega_lite(picture("joint"), width=700))
    assert "url" not in spec
    code = "import sys, service.app; assert not {'vl_convert', 'altair'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_xml_has_no_place_for_does_not_reach_the_renderer() -> None:
    """Which would end the whole process, beyond what Python can catch."""
    named = replace(
        picture("joint"), title="a\x1b[2J\x00\ufffe<b>&]]>\u00e9\U0001f40d", subtitle=["\x07"]
    )
    spec = vega_lite(named, width=700)
    assert spec["title"]["text"] == "a\ufffd[2J\ufffd\ufffd<b>&]]>\u00e9\U0001f40d"
    assert spec["title"]["subtitle"] == ["\ufffd"]
    drawn(named)
