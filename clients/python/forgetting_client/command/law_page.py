"""Laws and predictions as text."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from forgetting_client.command.job_page import cell, fit, grid
from forgetting_client.command.output import clean
from forgetting_client.command.words import ago, interval, number, when
from forgetting_client.wire import Law, PendingLaw, Prediction

FORMULAS = {
    "linear": "L_f = -c_f_ft * L_ft + s_f_ft",
    "joint": "L_f = sign * (A P^-alpha + B N^-beta)^rho + shift",
}


def law_table(laws: Sequence[Law]) -> Table:
    numeric = ("r2", "rmse", "points", "runs")
    table = grid("id", "form", "metric", *numeric, "created", "base", right=numeric)
    for law in laws:
        table.add_row(
            law["id"],
            law["form"],
            law["metric"],
            number(law["r2"]),
            number(law["rmse"]),
            number(law["n_points"]),
            number(law["n_runs"]),
            ago(law["created_at"]),
            cell(base_name(law)),
        )
    return fit(table)


def base_name(law: Law) -> str:
    """The recipe's base; points sent by hand have none."""
    recipe = law["recipe"] or {}
    return str(recipe.get("base_model") or recipe.get("base") or "by hand")


def pending_line(one: PendingLaw) -> str:
    base = one["recipe"].get("base_model") or one["group"][:19]
    return f"No {one['form']} law yet for {base} ({one['n_runs']} runs): {one['detail']}"


def law_page(law: Law) -> list[RenderableType]:
    head = Text.assemble((law["id"], "bold"), f"  {law['form']} law of {law['metric']}")
    formula = Text(f"  {FORMULAS[law['form']]}", style="bold")
    coefficients = grid("", "value", "ci95", "", right=["value"])
    for name, one in law["coefficients"].items():
        doubt = "" if one["identifiable"] else "not identifiable from these points"
        coefficients.add_row(
            f"  {name}", number(one["value"]), interval(one["ci95"]), cell(doubt, "yellow")
        )
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(overflow="fold")
    for name, value in about(law):
        facts.add_row(name, cell(value))
    warnings = [f"warning: {clean(warning)}" for warning in law["warnings"]]
    return [head, formula, "", coefficients, "", facts, *warnings]


def about(law: Law) -> Iterable[tuple[str, str]]:
    domain = law["domain"]
    yield "R2", f"{number(law['r2'])}, RMSE {number(law['rmse'])} nats per token"
    yield "points", f"{law['n_points']} of {law['n_runs']} runs"
    yield "trainable_params", reach(domain["trainable_params"])
    if domain["ranks"]:
        yield "ranks", ", ".join(map(str, domain["ranks"]))
    yield "step", reach(domain["step"])
    yield "ft_loss", reach(domain["ft_loss"])
    if law["condition_number"] is not None:
        yield "condition", number(law["condition_number"])
    for name, value in (law["recipe"] or {}).items():
        yield name, str(value)
    yield "created", when(law["created_at"])


def reach(bounds: Sequence[float]) -> str:
    low, high = bounds
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def prediction_lines(prediction: Prediction) -> Iterable[str]:
    outside = "yes, beyond the points of the fit" if prediction["extrapolating"] else "no"
    rows = [
        (prediction["metric"], f"{number(prediction['value'])} nats per token"),
        ("ci95", f"{interval(prediction['ci95'])} where the curve lies"),
        ("pi95", f"{interval(prediction['pi95'])} where a new run would fall"),
        ("extrapolating", outside),
    ]
    for name, value in rows:
        yield f"{name:<13}  {value}"
