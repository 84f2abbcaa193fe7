"""A gate as people see it: what was asked, a row per check, and the verdict last."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from forgetting_client.command.job_page import cell, grid
from forgetting_client.command.output import clean
from forgetting_client.command.words import NOTHING, number, span

STYLES = {
    "pass": "green",
    "warn": "yellow",
    "fail": "red",
    "inconclusive": "yellow",
    "not_measurable": "magenta",
    "incomparable": "magenta",
}
WORST = 5


def gate_page(gate: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Everything but the verdict."""
    result = gate["result"]
    yield Text(heading(gate), style="bold")
    if result is None:
        return
    table = grid("check", "metric", "value", "limit", "verdict", "why", right=("value", "limit"))
    for check in result["checks"]:
        word = check["verdict"].replace("_", " ")
        if check["informational"]:
            word += " (info)"
        table.add_row(
            cell(check["id"]),
            cell(metric(check)),
            number(check["value"]),
            limit(check),
            cell(word, STYLES.get(check["verdict"], "")),
            cell(why(check)),
        )
    yield table
    yield clean(scored(result))
    if result["worst_tokens"]:
        worst = (f"{one['token']!r} {one['kl']:.1f}" for one in result["worst_tokens"][:WORST])
        yield clean(f"most forgotten: {'  '.join(worst)}")
    for warning in result["warnings"]:
        yield clean(f"warning: {warning}")


def heading(gate: Mapping[str, Any]) -> str:
    candidate = gate["result"]["candidate"]["name"] if gate["result"] else "adapter"
    place = f"{gate['id']}  " if gate["id"] else ""
    return clean(f"{place}{candidate} on {gate['base_model']}, {gate['corpus']}")


def verdict_line(gate: Mapping[str, Any], code: int) -> str:
    """The last line. `code`: what the command exits with, which a report that cannot be written
    may change."""
    word = str(gate["verdict"]).replace("_", " ").upper()
    return f"VERDICT: {word} (exit {code})"


def metric(check: Mapping[str, Any]) -> str:
    baseline = check.get("baseline")
    return f"{check['metric']} over {baseline}" if baseline else str(check["metric"])


def limit(check: Mapping[str, Any]) -> str:
    if check["limit"] is None:
        return NOTHING
    sign = "≥" if check["metric"].startswith("same_top") else "≤"
    return f"{sign} {number(check['limit'])}"


def why(check: Mapping[str, Any]) -> str:
    """The reason, and the interval that it rests on."""
    interval = check["interval"]
    if interval is None:
        return str(check["reason"])
    around = f"[{number(interval['low'])}, {number(interval['high'])}]"
    what = "" if check["unit"] == "nats/token" else " of positions"
    return f"{check['reason']}; {around}{what}, this corpus"


def scored(result: Mapping[str, Any]) -> str:
    """What was scored, what that took, and what it spared."""
    cost = result["cost"]
    seconds = cost["seconds"]
    start = seconds.get("validating", 0.0) + seconds.get("loading", 0.0)
    scoring = sum(seconds.values()) - start
    saved = "" if not cost["seconds_saved"] else f", about {span(cost['seconds_saved'])} saved"
    noise = result["noise_floor"]
    floor = "" if noise is None else f"; noise floor {noise['kl']:.1e}"
    return (
        f"scored {result['n_scored']:,} of {result['n_windows']:,} windows "
        f"({result['fraction']:.1%}) in {span(scoring)}{saved}; start-up {span(start)}; "
        f"{result['engine']['name']}{floor}"
    )
