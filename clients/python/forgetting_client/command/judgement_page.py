"""How far a law can be trusted, as the service judged it, in words and small tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from forgetting_client.command.job_page import cell, grid, titled
from forgetting_client.command.output import clean
from forgetting_client.command.words import NOTHING, number
from forgetting_client.law_wire import Law

KINDS = {
    "inner_rank": "inner rank",
    "edge_rank": "edge rank",
    "later_steps": "later steps",
    "run": "unseen run",
}
"""What was held out, as columns."""
SHARES = ("overall", "within_runs", "between_runs", "unseen_runs")


def verdict_lines(law: Law) -> Iterable[str]:
    """Which form may be the default and why, and what nobody may overlook."""
    judged = law["judgement"] or {}
    reason = _part(judged, "choice").get("reason")
    if reason:
        yield f"Held out: {clean(str(reason))}"
    for notice in judged.get("notices") or []:
        yield f"notice: {clean(str(notice))}"


def judgement_page(law: Law) -> list[RenderableType]:
    judged = law["judgement"]
    if judged is None:
        return []
    parts: list[RenderableType] = ["", *verdict_lines(law)]
    sentence = _part(judged, "sufficiency").get("sentence")
    if sentence:
        parts += ["", clean(str(sentence))]
    held_out = held_out_table(judged)
    if held_out is not None:
        parts += titled("Mean absolute error on points not seen, nats per token", held_out)
    r2 = r2_table(judged)
    if r2 is not None:
        parts += titled("R2", r2)
    for name, why in (judged.get("missing") or {}).items():
        parts.append(f"not judged: {name}: {clean(str(why))}")
    return parts


def held_out_table(judged: Mapping[str, Any]) -> Table | None:
    """A row per form and rival, the best overall first, a column per kind of folds."""
    kinds = [kind for kind in KINDS if _part(judged, "held_out").get(kind)]
    overall = _part(judged, "choice").get("overall") or {}
    names = sorted(
        dict.fromkeys(name for kind in kinds for name in judged["held_out"][kind]["errors"]),
        key=lambda name: overall.get(name, {}).get("mae", float("inf")),
    )
    if not names:
        return None
    columns = [KINDS[kind] for kind in kinds]
    table = grid("", *columns, "spreads behind", right=[*columns, "spreads behind"])
    for name in names:
        missed = [judged["held_out"][kind]["errors"].get(name) or {} for kind in kinds]
        behind = overall.get(name, {}).get("behind")
        last = NOTHING if behind is None else f"{behind:.2f}"
        table.add_row(cell(f"  {name}"), *(number(one.get("mae")) for one in missed), last)
    return table


def r2_table(judged: Mapping[str, Any]) -> Table | None:
    forms = {form: one for form, one in _part(judged, "r2").items() if one}
    if not forms:
        return None
    columns = [name.replace("_", " ") for name in SHARES]
    table = grid("", *columns, right=columns)
    for form, one in forms.items():
        table.add_row(cell(f"  {form}"), *(number(one.get(name)) for name in SHARES))
    return table


def _part(judged: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part, which may be missing: empty then."""
    return judged.get(name) or {}
