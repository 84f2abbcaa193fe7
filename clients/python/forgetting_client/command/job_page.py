"""Jobs and results as text and tables. Column names are the field names of the result."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from forgetting_client.command.output import clean, console
from forgetting_client.command.residual import sentences
from forgetting_client.command.words import (
    NOTHING,
    STYLES,
    ago,
    estimate,
    interval,
    number,
    outlook,
    progress,
    span,
    standing,
    status,
    subject,
    took,
    when,
)
from forgetting_client.sweeps import PilotView
from forgetting_client.wire import Checkpoint, CheckpointView, Estimate, Job, Result

MEANS = ("kl", "ce_soft", "ce_hard", "same_top", "same_top5", "nll_base", "nll_tuned", "kl_reverse")
WORST = 5
AXES: dict[str, Callable[[Job], str]] = {
    "rank": lambda job: str(job["spec"]["training"]["lora"]["r"]),
    "seed": lambda job: str(job["spec"]["training"]["seed"]),
    "learning_rate": lambda job: f"{job['spec']['training']['learning_rate']:g}",
}
"""What may differ between the children of one sweep."""


def grid(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without lines, so that a pipe can cut it into columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numeric = set(right)
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in numeric else "left",
            no_wrap=True,
            header_style="bold",
        )
    return table


def fit(table: Table) -> Table:
    """Cuts the last column, and no other, to what the terminal leaves: an id must stay whole."""
    *whole, last = table.columns
    taken = sum(max(len(str(text)) for text in [one.header, *one.cells]) + 2 for one in whole)
    last.max_width = max(8, console().width - taken)
    return table


def titled(title: str, table: Table) -> list[RenderableType]:
    return ["", Text(title, style="bold underline"), table]


def cell(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style, overflow="ellipsis")


def job_table(jobs: Sequence[Job]) -> Table:
    table = grid("id", "type", "status", "created", "about")
    for job in jobs:
        base = job["spec"]["base_model"]
        table.add_row(
            job["id"],
            job["type"],
            cell(standing(job), STYLES.get(status(job), "")),
            ago(job["created_at"]),
            cell(f"{base.rstrip('/').rpartition('/')[2]}: {subject(job)}"),
        )
    return fit(table)


def children_table(jobs: Sequence[Job], scores: Mapping[str, CheckpointView]) -> Table:
    """`scores`: the last checkpoint of each child that has one, by its job id."""
    varied = [name for name in AXES if len({AXES[name](job) for job in jobs}) > 1 or name == "rank"]
    numeric = (*varied, "L_ft", "kl", "ce_soft", "same_top")
    table = grid("id", *numeric, "status", right=numeric)
    for job in jobs:
        last = scores.get(job["id"])
        fields = ("heldout_loss", "kl", "ce_soft", "same_top")
        table.add_row(
            job["id"],
            *(AXES[name](job) for name in varied),
            *(number(last[name] if last else None) for name in fields),  # type: ignore[literal-required]
            cell(standing(job), STYLES.get(status(job), "")),
        )
    return fit(table)


def heading(job: Job) -> list[RenderableType]:
    """What the job is and where it stands."""
    word = status(job)
    first = Text.assemble(
        (job["id"], "bold"), f"  {job['type']}  ", (clean(word), STYLES.get(word, ""))
    )
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(overflow="fold")
    for name, value in about(job):
        facts.add_row(name, cell(value))
    return [first, facts]


def about(job: Job) -> Iterable[tuple[str, str]]:
    spec = job["spec"]
    evaluation = spec["evaluation"]
    yield "base model", spec["base_model"]
    if spec.get("dataset"):
        yield "dataset", spec["dataset"]["path"]
    if "training" in spec:
        yield "training", recipe(spec)
    if "adapters" in spec:
        yield "adapters", subject(job)
    yield "corpus", f"{evaluation['corpus']}, windows of {evaluation['context']} tokens"
    yield "created", when(job["created_at"])
    duration = took(job)
    if duration:
        attempts = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
        yield "took" if job["finished_at"] else "running for", duration + attempts
    if job["status"] == "running":
        yield "now", outlook(job) if job["type"] == "sweep" else progress(job)
    if job["sweep"]:
        yield "sweep", job["sweep"]
    if job["extends"]:
        yield "goes on from", job["extends"]
    if job["pilot"]:
        yield "pilot", piloted(job["pilot"])
    if job["children"]:
        kinds = ((name, n) for name, n in job["children"].items() if name != "total" and n)
        told = ", ".join(f"{n} {name}" for name, n in kinds)
        yield "children", f"{job['children']['total']}: {told}"
    for child in job["failed_children"] or []:
        where = f"rank {child['rank']}, seed {child['seed']}, {child['learning_rate']:g}"
        yield "failed", f"{where}: {child['code']}: {child['detail']} ({child['job']})"
    if job["metadata"]:
        yield "metadata", ", ".join(f"{name}={value}" for name, value in job["metadata"].items())
    if job["error"]:
        error = job["error"]
        blame = f" ({error['param']})" if error.get("param") else ""
        yield "error", f"{error['detail']}{blame}"
        yield (
            "",
            f"{error['code']}: "
            + (
                "mend the spec or the data, then submit again."
                if error["class"] == "user"
                else f"the operator's to mend; then: forgetting jobs resume {job['id']}"
            ),
        )


def piloted(pilot: PilotView) -> str:
    """`at most 17% of the sweep: rank 8,16,32, seed 17,18, steps 52,65,104,130`."""
    axes = ", ".join(
        f"{name} {','.join(map(str, values))}"
        for name, values in (
            ("rank", pilot["ranks"]),
            ("seed", pilot["seeds"]),
            ("steps", pilot["steps"]),
        )
    )
    return f"at most {pilot['share_of_cost']:.0%} of the sweep: {axes}"


def recipe(spec: dict) -> str:  # type: ignore[type-arg]
    training = spec["training"]
    ranks = ",".join(map(str, spec.get("ranks", [training["lora"]["r"]])))
    rates = ",".join(f"{rate:g}" for rate in spec.get("learning_rates") or [])
    return (
        f"rank {ranks}, {training['max_steps']} steps of {training['batch_size']} rows, "
        f"{training['optim']} at {rates or format(training['learning_rate'], 'g')}"
    )


def result_tables(result: Result) -> list[RenderableType]:
    """The measurement at the last step, the steps before it, and what to know about it."""
    means = grid("", "value", "ci95", right=["value"])
    for name in MEANS:
        one: Estimate | None = result.get(name)  # type: ignore[assignment]
        if one is not None:
            means.add_row(name, number(one["value"]), interval(one["ci95"]))
    means.add_row("L_ft", number(result["ft_loss"]["heldout"]), NOTHING)
    parts = titled("Forgetting, nats per token", means)
    if told := [*map(clean, sentences(result))]:
        parts += ["", *told]
    if len(result["checkpoints"]) > 1:
        parts += titled("Checkpoints", measured_table(result["checkpoints"]))
    tokens = result["worst_tokens"][:WORST]
    if tokens:
        worst = grid("kl", "token", "base_top", "tuned_top", "context", right=["kl"])
        for token in tokens:
            words = [repr(token[name]) for name in ("token", "base_top", "tuned_top")]
            before = " ".join(token["context"].split())[-48:]
            worst.add_row(number(token["kl"]), *map(cell, words), cell(before))
        parts += titled("Worst tokens", fit(worst))
    return [*parts, "", *map(clean, notes(result))]


def measured_table(checkpoints: Sequence[Checkpoint]) -> Table:
    names = ("step", "rank", "P", "L_ft", "kl", "ce_soft", "same_top")
    table = grid(*names, "adapter", right=names)
    for one in checkpoints:
        scores = one["forgetting"]
        table.add_row(
            number(one["step"]),
            number(one["rank"]),
            number(one["trainable_params"]),
            number(one["ft_loss"]["heldout"]),
            estimate(scores["kl"]),
            estimate(scores["ce_soft"]),
            estimate(scores["same_top"]),
            cell(one["adapter"]),
        )
    return fit(table)


def checkpoint_table(checkpoints: Sequence[CheckpointView]) -> Table:
    """Of a job that has no result yet."""
    names = ("step", "rank", "P", "train_loss", "L_ft", "kl", "ce_soft", "same_top")
    table = grid(*names, right=names)
    for one in checkpoints:
        fields = ("trainable_params", "train_loss", "heldout_loss", "kl", "ce_soft", "same_top")
        table.add_row(number(one["step"]), number(one["rank"]), *(number(one[f]) for f in fields))  # type: ignore[literal-required]
    return table


def notes(result: Result) -> Iterable[str]:
    provenance = result["provenance"]
    plural = "document" if result["n_documents"] == 1 else "documents"
    yield (
        f"{result['n_positions']:,} tokens in {result['n_windows']:,} windows, "
        f"{result['n_documents']:,} {plural}; by {result['engine']['name']} "
        f"({provenance['dtype']} on {provenance['device']}); noise floor "
        f"{number(result['noise_floor']['kl'])}"
    )
    seconds = sum(result["cost"]["seconds"].values())
    cached = "" if result["cost"]["base_forward_tokens"] else ", base pass from the cache"
    yield f"computed in {span(seconds)}{cached}"
    reason = result["kl"].get("ci_reason")
    if reason:
        yield f"no interval: {reason}"
    if result.get("law_reason"):
        yield f"no law yet: {result['law_reason']}"
    for warning in result["warnings"]:
        yield f"warning: {warning}"
