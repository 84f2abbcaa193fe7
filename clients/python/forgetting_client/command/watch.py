"""A job followed live: a bar that moves on a terminal, plain lines elsewhere, JSON on demand."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TextIO

from forgetting_client.client import ForgettingClient
from forgetting_client.command.faults import INTERRUPTED, NOT_MEASURED, OK
from forgetting_client.command.gate_exit import code_of
from forgetting_client.command.gate_page import verdict_line
from forgetting_client.command.output import clean, console, emit_json, say
from forgetting_client.command.picture import Picture, numbers
from forgetting_client.command.pilot_page import prophecy
from forgetting_client.command.sweep_watch import watch_sweep
from forgetting_client.command.words import interval, moment, number, took
from forgetting_client.errors import ForgettingError
from forgetting_client.wire import Event, Job


class Watcher(Protocol):
    def show(self, event: Event) -> None: ...


def watch_job(
    client: ForgettingClient,
    job: Job,
    *,
    stream: TextIO,
    after: int | None = None,
    as_json: bool = False,
) -> int:
    """Exit code: 0 succeeded, 4 it or a child of it failed or was cancelled; of a gate the code of
    its verdict; 130 after Ctrl-C."""
    if job["status"] == "queued" and not as_json:
        warn_of_no_worker(client)
    try:
        if job["type"] == "sweep" and not as_json:
            watch_sweep(client, job, stream)
        else:
            with watcher(job, stream, as_json=as_json) as screen:
                for event in client.events(job["id"], after=after):
                    screen.show(event)
        job = client.job(job["id"])
    except KeyboardInterrupt:
        say(f"Stopped watching; {job['id']} goes on. End it: forgetting jobs cancel {job['id']}")
        return INTERRUPTED
    if not as_json:
        for line in epilogue(client, job):
            stream.write(clean(line) + "\n")
        stream.flush()
    if job["type"] == "gate" and job["status"] == "succeeded":
        return code_of(client.gate(job["id"]))
    return OK if job["status"] == "succeeded" and not shortfall(job) else NOT_MEASURED


def shortfall(job: Job) -> str:
    """`2 of 3 failed, 1 cancelled`; empty where no child of a sweep did."""
    counts = job["children"]
    if counts is None:
        return ""
    stopped = {"failed": counts["failed"], "cancelled": counts["cancelled"]}
    words = [f"{n} {state}" for state, n in stopped.items() if n]
    return ", ".join(words).replace(" ", f" of {counts['total']} ", 1)


def epilogue(client: ForgettingClient, job: Job) -> Iterator[str]:
    duration = took(job)
    yield f"{job['id']} {job['status']}" + (f" after {duration}" if duration else "")
    if job["error"]:
        error = job["error"]
        yield f"{error.get('param')}: {error['detail']}" if error.get("param") else error["detail"]
    if lost := shortfall(job):
        yield lost
    if job["type"] == "gate" and job["status"] == "succeeded":
        gate = client.gate(job["id"])
        yield str(gate["reason"])
        yield verdict_line(gate, code_of(gate))
        yield f"All of it: forgetting jobs show {job['id']}"
    elif job["status"] == "succeeded" and job["type"] != "sweep":
        result = client.result(job["id"])
        for name in ("kl", "ce_soft", "same_top"):
            one = result[name]
            yield f"  {name:<9} {number(one['value'])}  {interval(one['ci95'])}"
        yield f"All of it: forgetting jobs result {job['id']}"
    elif job["type"] == "sweep" and job["status"] == "succeeded":
        yield f"Its laws: forgetting laws fit --sweep {job['id']}"
        if job["pilot"] and job["pilot"]["extended_by"] is None:
            yield from prophecy(client, job)
            yield f"Go on with the whole sweep: forgetting jobs extend {job['id']}"
    extended = job["pilot"] is not None and job["pilot"]["extended_by"] is not None
    if (job["status"] in ("failed", "cancelled") or lost) and not extended:
        yield f"Try again: forgetting jobs resume {job['id']}"


@contextmanager
def watcher(job: Job, stream: TextIO, *, as_json: bool) -> Iterator[Watcher]:
    if as_json:
        yield JsonLines()
    elif stream.isatty():
        with Screen(job, stream) as screen:
            yield screen
    else:
        yield Plain(job, stream)


class JsonLines:
    """One event per line."""

    def show(self, event: Event) -> None:
        emit_json(event, one_line=True)


class Plain:
    """For logs: what happened, and a line for every tenth of a phase."""

    def __init__(self, job: Job, stream: TextIO) -> None:
        self._picture, self._stream = Picture.of(job), stream

    def show(self, event: Event) -> None:
        line = self._picture.take(event) or self._picture.tenth()
        if line:
            self._stream.write(f"{clock(event)}  {clean(line)}\n")
            self._stream.flush()


class Screen:
    """For a terminal: lines that stay, and below them a bar and the latest numbers."""

    def __init__(self, job: Job, stream: TextIO) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._picture = Picture.of(job)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[share]}", markup=False),
            TimeElapsedColumn(),
        )
        self._task = self._bar.add_task("", total=None, share="")
        self._live = Live(console=console(stream), transient=True, refresh_per_second=8)
        self._phase: tuple[str | None, str] = (None, "")

    def __enter__(self) -> "Screen":
        self._draw()
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        line = self._picture.take(event)
        if line:
            self._live.console.print(f"{clock(event)}  {clean(line)}", style="dim")
        self._draw()

    def _draw(self) -> None:
        from rich.console import Group
        from rich.text import Text

        picture = self._picture
        if self._phase != (picture.phase, picture.status):
            self._phase = (picture.phase, picture.status)
            self._bar.reset(self._task, total=None)
        share = f"{picture.done / picture.total:4.0%}" if picture.total else ""
        self._bar.update(
            self._task,
            description=clean(picture.headline()),
            completed=picture.done,
            total=picture.total,
            share=share,
        )
        self._live.update(
            Group(self._bar, Text(f"  {clean(numbers(picture.metrics))}", style="bold"))
        )


def clock(event: Event) -> str:
    """`12:30:01`, by the watcher's own clock."""
    return f"{moment(event['at']).astimezone():%H:%M:%S}"


def warn_of_no_worker(client: ForgettingClient) -> None:
    """A queue that nobody serves looks like a busy one."""
    with suppress(ForgettingError):
        worker = client.ready()["checks"].get("worker", {"ok": True, "detail": ""})
        if not worker["ok"]:
            say("No worker lives; the job waits until one starts: forgetting-service worker")
