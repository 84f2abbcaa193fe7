"""Laws and predictions as text."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from forgetting_client.command.job_page import cell, fit, grid
from forgetting_client.command.judgement_page import judgement_page
from forgetting_client.command.output import clean
from forgetting_client.command.words import NOTHING, ago, interval, number, when
from forgetting_client.law_wire import Furthest, Inverse, Law, PendingLaw, Plan, Prediction

FORMULAS = {
    "linear": "L_f = -c_f_ft * L_ft + s_f_ft",
    "joint": "L_f = sign * (A P^-alpha + B N^-beta)^rho + shift",
    "joint_lr": "L_f = sign * (A P^-alpha + B X^-beta)^rho + shift",
}


def law_table(laws: Sequence[Law]) -> Table:
    numeric = ("r2", "rmse", "points", "runs")
    table = grid("id", "form", "metric", "version", *numeric, "created", "base", right=numeric)
    for law in laws:
        table.add_row(
            law["id"],
            law["form"],
            law["metric"],
            NOTHING if law["version"] is None else str(law["version"]),
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
    said = f"  {law['form']} law of {law['metric']}"
    if law["version"] is not None:
        said += f", version {law['version']}"
        said += f", after {law['supersedes']}" if law["supersedes"] else ""
    head = Text.assemble((law["id"], "bold"), said)
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
    return [head, formula, "", coefficients, "", facts, *warnings, *judgement_page(law)]


def about(law: Law) -> Iterable[tuple[str, str]]:
    domain = law["domain"]
    yield "R2", f"{number(law['r2'])}, RMSE {number(law['rmse'])} nats per token"
    noise = law["noise"]
    parts = f"runs {number(noise['between_sd'])}, within them {number(noise['within_sd'])}"
    yield "a new run's sd", f"{number(noise['sd'])} nats per token ({parts})"
    out = law["provenance"]["left_out"]
    left = f", {out['burn_in']} of the warm-up left out" if out["burn_in"] else ""
    left += f", {out['unmeasured']} without {law['metric']}" if out["unmeasured"] else ""
    yield "points", f"{law['n_points']} of {law['n_runs']} runs{left}"
    yield "trainable_params", reach(domain["trainable_params"])
    if domain["ranks"]:
        yield "ranks", ", ".join(map(str, domain["ranks"]))
    yield "step", reach(domain["step"])
    yield "ft_loss", reach(domain["ft_loss"])
    if law["across"] is not None:
        yield "learning rates", ", ".join(f"{rate:g}" for rate in law["across"]["rates"])
        yield "exposure X", f"{law['across']['exposure']}: {law['across']['reason']}"
    if law["condition_number"] is not None:
        yield "condition", number(law["condition_number"])
    for name, value in (law["recipe"] or {}).items():
        yield name, str(value)
    yield "points_digest", law["provenance"]["points_digest"]
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


def inverse_lines(inverse: Inverse) -> Iterable[str]:
    end = "lowest" if inverse["axis"] == "ft_loss" else "largest"
    limit = f"{inverse['metric']} of at most {inverse['max_forgetting']:g} nats per token"
    yield f"{end} {inverse['axis']} with {limit}"
    yield f"{'safe':<13}  {furthest(inverse['safe'], '95 % of new runs stay below')}"
    yield f"{'by the curve':<13}  {furthest(inverse['value'], 'half of new runs forget more')}"


def furthest(one: Furthest, meaning: str) -> str:
    at = one["at"]
    if at is None:
        return one["reason"] or one["outcome"]
    said = number(int(at) if float(at).is_integer() else at)
    return f"{said}: {meaning}" + (" (extrapolating)" if one["extrapolating"] else "")


def plan_table(plan: Plan) -> Table:
    numeric = ("rank", "step", "L_ft", "forgetting")
    rates = any(option["learning_rate"] is not None for option in plan["options"])
    with_rate = ["learning_rate"] if rates else []
    columns = ["rank", "step", *with_rate, "L_ft", "pi95", "forgetting", "pi95 ", "limits"]
    table = grid(*columns, "", right=[*numeric, *with_rate])
    for option in plan["options"]:
        kept = "safe" if option["safe"] else "by the curve" if option["meets"] else "missed"
        table.add_row(
            number(option["rank"]),
            number(option["step"]),
            *([f"{option['learning_rate']:g}"] if rates else []),
            number(option["ft_loss"]["value"]),
            interval(option["ft_loss"]["pi95"]),
            number(option["forgetting"]["value"]),
            interval(option["forgetting"]["pi95"]),
            cell(kept, "green" if option["safe"] else "yellow"),
            cell("extrapolating" if option["extrapolating"] else ""),
        )
    return table
