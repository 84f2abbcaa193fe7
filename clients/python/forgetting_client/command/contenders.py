"""What is to be compared: names on a command line -> one evaluate spec, or a result that is there.

Measured on unlike bases, corpora or windows, numbers do not compare: that is `Incomparable`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from forgetting_client.client import ForgettingClient
from forgetting_client.command import spec as specs
from forgetting_client.command.adapters import upload_local
from forgetting_client.command.watch import watch_job
from forgetting_client.command.words import adapter as shown
from forgetting_client.errors import ForgettingError
from forgetting_client.wire import Job

MOST = 64
PLACE = {
    "base": ("base_model", "--base"),
    "corpus": ("evaluation.corpus", "--corpus"),
    "split": ("evaluation.split", "--set evaluation.split="),
    "context": ("evaluation.context", "--context"),
}
"""Where a spec says what must be alike, and the option that settles it."""


class Incomparable(ForgettingError):
    """What was asked to be compared was measured on different things."""


class NotMeasured(ForgettingError):
    """The job that was to measure them failed or was cancelled."""


def ready_made(
    client: ForgettingClient, wanted: Sequence[str], given: Mapping[str, Any]
) -> Job | None:
    """The one job that has measured all that is wanted, if one was named and nothing else."""
    if len(wanted) != 1 or specs.JOB_ADAPTER.fullmatch(wanted[0]) is None or ":" in wanted[0]:
        return None
    if any(value is not None for value in given.values()):
        return None
    return client.job(wanted[0])


def evaluation(
    client: ForgettingClient,
    wanted: Sequence[str],
    *,
    base: str | None,
    corpus: str | None = None,
    context: int | None = None,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """The spec of one evaluate job for all, folders here sent. What no option says is taken from
    the jobs that are named. Raises Incomparable, typer.BadParameter."""
    listed = [one for name in wanted for one in _adapters(client, name)]
    if len(listed) > MOST:
        raise typer.BadParameter(f"{len(listed)} adapters; one job measures {MOST} at most")
    jobs = [client.job(one["job"]) for one in listed if "job" in one]
    settled = {"base": base, "corpus": corpus, "split": None, "context": context}
    for name, (path, option) in PLACE.items():
        if settled[name] is not None and name != "base":
            continue
        found = {_at(job["spec"], path): job["id"] for job in jobs}
        if base is not None and name == "base":
            found = {base: "--base", **found}
        if len(found) > 1:
            told = ", ".join(f"{value} ({who})" for value, who in found.items())
            advice = "" if name == "base" else f"; {option} measures all alike"
            raise Incomparable(f"not the same {name}: {told}{advice}")
        settled[name] = next(iter(found), settled[name])
    if settled["base"] is None:
        raise typer.BadParameter("no job is named, so --base must say of what these are adapters")
    flags = {"base_model": settled["base"], "corpus": settled["corpus"], "dataset": dataset}
    flags["context"] = settled["context"]
    split = [f"evaluation.split={settled['split']}"] if settled["split"] else []
    spec = specs.build({}, flags=flags, job_type="evaluate", overrides=[*split, *overrides])
    spec["adapters"] = listed
    upload_local(client, spec, [one["path"] for one in listed if "path" in one])
    return spec


def measured(client: ForgettingClient, spec: Mapping[str, Any], *, stream: Any) -> Job:
    """Queue, follow, and return the finished job. Raises NotMeasured, KeyboardInterrupt."""
    job = client.create_job(spec)
    code = watch_job(client, job, stream=stream)
    if code == 130:
        raise KeyboardInterrupt
    job = client.job(job["id"])
    if job["status"] != "succeeded":
        why = job["error"]["detail"] if job["error"] else job["status"]
        raise NotMeasured(f"{job['id']} {job['status']}: {why}")
    return job


def laws_of(client: ForgettingClient, job: Job) -> list[Mapping[str, Any] | None]:
    """Per adapter of an evaluate job its residual against its recipe's law, where one is known."""
    told = [job["law"], *job["law"]["also"]] if job["law"] else []
    found: list[Mapping[str, Any] | None] = []
    for one in job["spec"]["adapters"]:
        law = _last(told, one.get("run"), one.get("step"))
        if law is None and "job" in one:
            origin = client.job(one["job"])["law"]
            law = _last([origin] if origin else [], one["job"], one.get("step"))
        found.append(law)
    return found


def names_of(job: Job, result: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """As they were asked for where that is one each, else as the job has them."""
    if job["type"] != "evaluate":
        return [str(one["adapter"]) for one in result["checkpoints"]]
    listed = job["spec"]["adapters"]
    return list(wanted) if len(wanted) == len(listed) else [shown(one) for one in listed]


def _adapters(client: ForgettingClient, name: str) -> list[dict[str, Any]]:
    """A job that measured adapters stands for those."""
    one = specs.adapter(name)
    if "job" not in one or "step" in one:
        return [one]
    job = client.job(one["job"])
    return list(job["spec"].get("adapters") or [one])


def _last(told: Sequence[Any], run: str | None, step: int | None) -> Mapping[str, Any] | None:
    same = (law for law in told if law["run"] == run and step in (None, law["step"]))
    return next(same, None) if run is not None else None


def _at(spec: Mapping[str, Any], path: str) -> Any:
    value: Any = spec
    for name in path.split("."):
        value = value[name]
    return value
