"""A gate as people see it: what was asked, a row per check, and the verdict last."""

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from forgetting_client.command.job_page import cell, fit, grid
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
    if result is not None:
        yield from judged(result)
        for line in apart(gate):
            yield Text(clean(line))
    if gate["reason"]:
        yield Text(clean(gate["reason"]))


def page_text(gate: Mapping[str, Any], code: int, *, width: int = 72) -> str:
    """All of it without colours, the verdict last. `width`: columns."""
    file = StringIO()
    out = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    for part in gate_page(gate):
        out.print(part)
    return f"{file.getvalue()}{verdict_line(gate, code)}"


def judged(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A row per check and the reason of each, and what it took."""
    table = grid("check", "metric", "value", "limit", "verdict", right=("value", "limit"))
    for check in result["checks"]:
        word = check["verdict"].replace("_", " ")
        table.add_row(
            cell(check["id"]),
            cell(metric(check)),
            number(check["value"]),
            limit(check),
            cell(f"{word} (info)" if check["informational"] else word, STYLES[check["verdict"]]),
        )
    yield fit(table)
    reasons = {check["id"]: why(check) for check in result["checks"]}
    if len(set(reasons.values())) > 1 or len(reasons) == 1:
        for name, said in reasons.items():
            yield Text(clean(f"{name}: {said}"))
    for line in cost(result):
        yield Text(clean(line))
    if result["worst_tokens"]:
        worst = (f"{one['token']!r} {one['kl']:.2g}" for one in result["worst_tokens"][:WORST])
        yield Text(clean(f"most forgotten: {'  '.join(worst)}"))
    for warning in result["warnings"]:
        yield Text(clean(f"warning: {warning}"))


def heading(gate: Mapping[str, Any]) -> str:
    candidate = gate["result"]["candidate"]["name"] if gate["result"] else "adapter"
    place = f"{gate['id']}  " if gate["id"] else ""
    return clean(f"{place}{candidate} on {gate['base_model']}, {gate['corpus']}")


def apart(gate: Mapping[str, Any]) -> Iterator[str]:
    """What the policy's limits were found on beside what this is, where they differ."""
    found_on = gate["policy"].get("measured_on") or {}
    this = gate["result"]["provenance"]
    for name in gate["result"]["different"]:
        theirs, ours = found_on.get(name), this.get(name)
        if None not in (theirs, ours) and theirs != ours:
            yield f"{name}: the limits were found on {str(theirs)[:19]}, this is {str(ours)[:19]}"
    if gate["verdict"] == "incomparable" and found_on:
        yield "Limits for what this is: forgetting policy init"


def verdict_line(gate: Mapping[str, Any], code: int) -> str:
    """The last line. `code`: what the command exits with, which a report that cannot be written
    may change."""
    word = str(gate["verdict"]).replace("_", " ").upper()
    return f"VERDICT: {word} (exit {code})"


def metric(check: Mapping[str, Any]) -> str:
    """`kl`, `p99 of kl`, `kl over prod`."""
    name, _, percentile = str(check["metric"]).partition("_percentiles.")
    named = f"{percentile} of {name}" if percentile else name
    return f"{named} over {check['baseline']}" if check.get("baseline") else named


def limit(check: Mapping[str, Any]) -> str:
    """As the policy has it, not padded with zeros."""
    if check["limit"] is None:
        return NOTHING
    return f"{'≥' if agreement(check) else '≤'} {check['limit']:.6g}"


def agreement(check: Mapping[str, Any]) -> bool:
    return str(check["metric"]).startswith("same_top")


def why(check: Mapping[str, Any]) -> str:
    """The reason, and the interval it rests on: in the metric's unit, of a percentile a share."""
    interval = check["interval"]
    if interval is None:
        return str(check["reason"])
    low, high = interval["low"], interval["high"]
    if agreement(check):
        around = f"{number(1 - high)} to {number(1 - low)}"
    elif check["unit"] == "nats":
        most = check["estimand_limit"]
        may = "" if most is None else f", {most:.3g} may"
        around = f"{low:.3g} to {high:.3g} of positions lie above it{may}"
    else:
        around = f"{number(low)} to {number(high)}"
    return f"{check['reason']}; on this corpus {around}"


def cost(result: Mapping[str, Any]) -> Iterator[str]:
    """What was scored, what that took, and what it spared."""
    took, noise = result["cost"], result["noise_floor"]
    seconds = took["seconds"]
    start = seconds.get("validating", 0.0) + seconds.get("loading", 0.0)
    saved = f", about {span(took['seconds_saved'])} saved" if took["seconds_saved"] else ""
    yield (
        f"scored {result['n_scored']:,} of {result['n_windows']:,} windows "
        f"({result['fraction']:.1%}) in {span(sum(seconds.values()) - start)}{saved}"
    )
    floor = "" if noise is None else f", noise floor {noise['kl']:.2g}"
    yield f"start-up {span(start)}, by {result['engine']['name']}{floor}"
