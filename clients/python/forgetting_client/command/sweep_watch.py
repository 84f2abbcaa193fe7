"""A sweep followed live: its children one by one, and how many are done."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol, TextIO

from forgetting_client.client import ForgettingClient
from forgetting_client.command.output import clean, console
from forgetting_client.command.picture import numbers
from forgetting_client.command.words import outlook, progress
from forgetting_client.wire import TERMINAL, Job

POLL_SECONDS = 1.0
SCORES = ("heldout_loss", "kl", "ce_soft", "same_top")


def watch_sweep(client: ForgettingClient, sweep: Job, stream: TextIO) -> None:
    """Returns when the sweep is at rest. A line stays for every child that starts or ends."""
    told: dict[str, str] = {}
    with board(stream) as screen:
        while True:
            # The sweep is read first, so that an end between the two is told in full.
            sweep = client.job(sweep["id"])
            children = list(client.jobs(sweep=sweep["id"]))[::-1]
            for child in children:
                if child["status"] not in ("queued", told.get(child["id"])):
                    told[child["id"]] = child["status"]
                    screen.line(story(client, sweep, child))
            screen.draw(sweep, children)
            if sweep["status"] in TERMINAL:
                return
            time.sleep(POLL_SECONDS)


def story(client: ForgettingClient, sweep: Job, child: Job) -> str:
    """`rank 8: succeeded  L_ft 2.142  kl 0.03128  ce_soft 2.971`."""
    words = f"{label(sweep, child)}: {child['status']}"
    if child["error"]:
        return f"{words}: {child['error']['detail']}"
    if child["status"] == "succeeded" and (saved := client.checkpoints(child["id"])):
        last = {name: value for name, value in saved[-1].items() if name in SCORES}
        words += "  " + numbers({k: v for k, v in last.items() if isinstance(v, int | float)})
    return words


def label(sweep: Job, child: Job) -> str:
    """What sets this child apart from its siblings."""
    training, spec = child["spec"]["training"], sweep["spec"]
    words = [f"rank {training['lora']['r']}"]
    if len(spec.get("seeds") or []) > 1:
        words.append(f"seed {training['seed']}")
    if len(spec.get("learning_rates") or []) > 1:
        words.append(f"learning_rate {training['learning_rate']:g}")
    return ", ".join(words)


class Board(Protocol):
    def line(self, text: str) -> None: ...

    def draw(self, sweep: Job, children: Sequence[Job]) -> None: ...


@contextmanager
def board(stream: TextIO) -> Iterator[Board]:
    if stream.isatty():
        with LiveBoard(stream) as live:
            yield live
    else:
        yield PlainBoard(stream)


class PlainBoard:
    def __init__(self, stream: TextIO) -> None:
        self._stream, self._tenths = stream, 0

    def line(self, text: str) -> None:
        self._stream.write(f"{now()}  {clean(text)}\n")
        self._stream.flush()

    def draw(self, sweep: Job, children: Sequence[Job]) -> None:
        """A line for every tenth of the work."""
        tenths = int(10 * sweep["work"]["share_done"]) if sweep["work"] else 0
        if self._tenths < tenths < 10:
            self.line(f"sweep: {outlook(sweep)}")
        self._tenths = max(self._tenths, tenths)


class LiveBoard:
    def __init__(self, stream: TextIO) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(30))
        self._bar = Progress(*columns, TimeElapsedColumn())
        self._task = self._bar.add_task("", total=None)
        self._live = Live(self._bar, console=console(stream), transient=True, refresh_per_second=8)

    def __enter__(self) -> "LiveBoard":
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        self._live.console.print(f"{now()}  {clean(text)}", style="dim")

    def draw(self, sweep: Job, children: Sequence[Job]) -> None:
        from rich.console import Group
        from rich.text import Text

        done = sum(child["status"] in TERMINAL for child in children)
        words = f"{sweep['status']} {done}/{len(children)} jobs, {outlook(sweep)}"
        share = sweep["work"]["share_done"] if sweep["work"] else 0.0
        self._bar.update(self._task, description=words, completed=share, total=1.0)
        running = [child for child in children if child["status"] == "running"]
        lines = [f"  {label(sweep, one)}: {at_work(one)}" for one in running]
        self._live.update(Group(self._bar, *(Text(clean(line), style="bold") for line in lines)))


def at_work(child: Job) -> str:
    return progress(child) if child["phase"] else "starting"


def now() -> str:
    return f"{datetime.now().astimezone():%H:%M:%S}"
