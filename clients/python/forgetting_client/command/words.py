"""Numbers, spans of time and jobs as people read them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from forgetting_client.wire import Estimate, Job

NOTHING = "-"


def number(value: float | None) -> str:
    """Four significant digits, zeros kept so that columns align; whole numbers with commas."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:#.4g}".rstrip(".") if value else "0"


def interval(ci95: Any) -> str:
    return NOTHING if ci95 is None else f"[{number(ci95[0])}, {number(ci95[1])}]"


def estimate(one: Estimate | None) -> str:
    """A value alone, as in a table's cell."""
    return NOTHING if one is None else number(one["value"])


def span(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} days"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ago(text: str) -> str:
    """`3 min ago`; clocks that disagree never make it negative."""
    seconds = max(0, round((datetime.now(UTC) - moment(text)).total_seconds()))
    for unit, size in (("days", 172_800), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // (86_400 if unit == 'days' else size)} {unit} ago"
    return f"{seconds} s ago"


def when(text: str) -> str:
    return f"{moment(text):%Y-%m-%d %H:%M:%S} UTC, {ago(text)}"


def took(job: Job) -> str | None:
    """From first start to the end, or until now."""
    if job["started_at"] is None:
        return None
    end = moment(job["finished_at"]) if job["finished_at"] else datetime.now(UTC)
    return span((end - moment(job["started_at"])).total_seconds())


def progress(job: Job) -> str:
    """`training 140/260 steps`, or nothing to say."""
    parts = [job["phase"].replace("_", " ")] if job["phase"] else []
    if job["progress"]:
        parts.append(fraction(job["progress"]))
    return " ".join(parts) or NOTHING


def standing(job: Job) -> str:
    """The status, with how far the present phase, or a sweep as a whole, is: `running 27%`. Of a
    gate what it came to: `succeeded: fail`."""
    if job.get("cancel_requested"):
        return status(job)
    if job["status"] == "succeeded" and job["verdict"]:
        return f"{status(job)}: {job['verdict'].replace('_', ' ')}"
    if job["status"] == "running" and job.get("work"):
        return f"{status(job)} {job['work']['share_done']:.0%}"  # type: ignore[index]
    part = job["progress"]
    if job["status"] != "running" or not part or not part["total"]:
        return status(job)
    return f"{status(job)} {part['done'] / part['total']:.0%}"


def outlook(job: Job) -> str:
    """Of a sweep: `40% done, about 12 min 30 s left`."""
    work = job["work"]
    if work is None:
        return NOTHING
    if job.get("cancel_requested"):  # the children that will not run count as done
        return "stopping"
    left = work["eta_seconds"]
    time_left = "" if left is None else f", about {span(left)} left"
    return f"{work['share_done']:.0%} done{time_left}"


def fraction(one: Mapping[str, Any]) -> str:
    return f"{one['done']:.0f}/{one['total']:.0f} {one['unit']}"


def status(job: Job) -> str:
    return "cancelling" if job["cancel_requested"] and job["status"] == "running" else job["status"]


def subject(job: Job) -> str:
    """What the job is about, in a few words: the recipe's one or two telling fields."""
    spec = job["spec"]
    if "adapters" in spec:
        return ", ".join(map(adapter, spec["adapters"][:2])) + (
            f" and {len(spec['adapters']) - 2} more" if len(spec["adapters"]) > 2 else ""
        )
    training = spec["training"]
    ranks = spec["ranks"] if job["type"] == "sweep" else [training["lora"]["r"]]
    seed = f", seed {training['seed']}" if job["sweep"] else ""
    listed = ",".join(map(str, ranks))
    return f"{spec['dataset']['path']}, rank {listed}{seed}, {training['max_steps']} steps"


def adapter(one: Mapping[str, Any]) -> str:
    for name in ("path", "id"):
        if name in one:
            return str(one[name])
    return f"{one['job']}:{one['step']}" if one.get("step") else str(one["job"])


STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
}
