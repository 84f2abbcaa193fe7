"""What a person sees while waiting: bars on a terminal, a line now and then in a log."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo.sweep import Child


class Say(Protocol):
    """Tells the bar what is done now, and how much of the total."""

    def __call__(self, words: str | None = None, *, advance: int = 0) -> None: ...


@contextlib.contextmanager
def bar(console: Console, what: str, *, total: int | None = None) -> Iterator[Say]:
    """A bar with the seconds so far; without a total it only moves."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            shown = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(bar_width=30),
                TimeElapsedColumn(), console=console, transient=True,
            )  # fmt: skip
            task = stack.enter_context(shown).add_task(what, total=total)
            yield lambda words=None, advance=0: shown.update(
                task, description=f"{what}: {words}" if words else what, advance=advance
            )
        else:
            console.print(f"{what} …")
            yield lambda words=None, advance=0: None
    console.print(f"{what}: {time.monotonic() - started:.0f} s")


def watch(console: Console, states: Iterable[list[Child]]) -> list[Child]:
    """Show the children until they have ended; returns their last state."""
    show = _screen if console.is_terminal else _lines
    return show(console, states)


def words(child: Child) -> str:
    """`training, loss 3.21` or `scoring tuned, KL 0.31 at checkpoint 4`."""
    if child.error:
        return child.error
    said = child.doing or child.status
    if child.kl is not None:
        return f"{said}, forgetting {child.kl:.3f} at checkpoint {child.n_checkpoints}"
    return said if child.train_loss is None else f"{said}, loss {child.train_loss:.2f}"


def _screen(console: Console, states: Iterable[list[Child]]) -> list[Child]:
    runs = Progress(
        TextColumn("{task.description:>9}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[words]}", markup=False),
    )  # fmt: skip
    whole = Progress(
        TextColumn("{task.description:>9}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
    )  # fmt: skip
    total = whole.add_task("sweep", total=1.0)
    tasks: dict[str, TaskID] = {}
    last: list[Child] = []
    with Live(Group(runs, whole), console=console, refresh_per_second=8):
        for last in states:
            for child in last:
                if child.job not in tasks:
                    tasks[child.job] = runs.add_task(f"rank {child.rank}", total=1.0, words="")
                runs.update(tasks[child.job], completed=child.done, words=words(child))
            whole.update(total, completed=_mean(last))
    return last


def _lines(console: Console, states: Iterable[list[Child]]) -> list[Child]:
    """A line whenever a run enters another phase or another fifth."""
    started = time.monotonic()
    told: dict[str, tuple[str, str, int]] = {}
    last: list[Child] = []
    for last in states:
        for child in last:
            news = (child.status, child.doing, int(child.done * 5))
            if told.get(child.job) != news and child.status != "queued":
                told[child.job] = news
                clock = f"{time.monotonic() - started:5.0f} s"
                line = f"{clock}  rank {child.rank:<3} {child.done:4.0%}  {words(child)}"
                console.print(line, markup=False)
    return last


def _mean(children: list[Child]) -> float:
    return sum(child.done for child in children) / max(1, len(children))
