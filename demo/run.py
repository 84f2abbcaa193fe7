"""The whole main job on a tiny model: `python -m demo.run`, five to seven minutes on two cores.

It starts the embedded set-up, sweeps four LoRA ranks through it, and shows what was forgotten:
a table, two laws, two pictures. Data goes to stdout, everything else to stderr.
Exit code 1: a run failed, or forgetting ended out of range, or something shown is not what the
service answers.
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forgetting_client import ForgettingClient, ForgettingError
from rich.console import Console

from demo import findings, progress, sweep
from demo.findings import DemoError
from demo.points import Measured, Predicted
from demo.prose import NoProse
from demo.serving import Serving, ServingError

BASE = Path(__file__).parent / "tiny_base"
INTERRUPTED = 130


def main() -> int:
    arguments = _arguments()
    err, out = (
        Console(stderr=True, soft_wrap=True, highlight=False),
        Console(soft_wrap=True, highlight=False),
    )
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    started = time.monotonic()
    try:
        with served(err, keep=arguments.keep) as serving, ForgettingClient(serving.url) as client:
            answer = demonstrate(client, err, out, arguments)
    except (DemoError, ServingError, ForgettingError, NoProse) as error:
        err.print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        err.print("Interrupted.", style="yellow")
        return INTERRUPTED
    answer["seconds"] = round(time.monotonic() - started, 1)
    if arguments.json:
        out.print_json(json.dumps(answer), indent=2)
    err.print(f"Done in {answer['seconds']:.0f} s.")
    return 0


def demonstrate(
    client: ForgettingClient, err: Console, out: Console, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Sweep, table, laws, pictures; everything plotted is asked for a second time."""
    job = client.create_job(sweep.spec(BASE.name))
    ranks = ", ".join(str(rank) for rank in sweep.RANKS)
    err.print(f"{job['id']}: LoRA ranks {ranks}, {sweep.CHECKPOINTS[-1]} steps each")
    children = progress.watch(err, sweep.follow(client, job["id"]))
    points = findings.measured(client, children)
    findings.check_range(points)
    with progress.bar(err, "Fitting the laws"):
        found = findings.laws(client, points)
    if not arguments.json:
        show(out, points, found)

    # Imported late: altair and the renderer take seconds, and a failed sweep needs neither.
    with progress.bar(err, "Drawing the pictures", total=4 + len(sweep.RANKS)) as say:
        from demo import pictures

        say("the linear law", advance=1)
        line = findings.line(client, found.linear)
        curves: list[Predicted] = []
        for rank in sweep.RANKS:
            say(f"the joint law at rank {rank}", advance=1)
            curves += findings.curve(client, found.joint, rank)
        drawn = [
            pictures.against_loss(points, line, r2=found.linear["r2"]),
            pictures.against_steps(points, curves, r2=found.joint["r2"]),
        ]
        written: list[Path] = []
        for picture in drawn:
            say(picture.name, advance=1)
            written += pictures.save(picture, arguments.out)
    n_plotted = 2 * len(points) + len(line) + len(curves)
    with progress.bar(err, "Asking again for every plotted number", total=n_plotted) as say:
        for picture in drawn:
            for _ in findings.check_plotted(client, picture):
                say(advance=1)
    err.print(f"{n_plotted} plotted numbers are what the service answers.")
    files = [str(path.resolve()) for path in written]
    if not arguments.json:
        out.print("Pictures:", *written, sep="\n  ")
    summary = findings.summary(points, found)
    return summary | {"sweep": job["id"], "n_checked": n_plotted, "pictures": files}


def show(out: Console, points: list[Measured], found: findings.Laws) -> None:
    out.print(findings.table(points))
    for law in (found.linear, found.joint):
        out.print(f"{law['form']:6}  R² {law['r2']:.4f}   {findings.equation(law)}")
        for warning in law["warnings"]:
            out.print(f"        {warning}", style="dim", markup=False)


@contextlib.contextmanager
def served(err: Console, *, keep: bool) -> Iterator[Serving]:
    """A service that is ready, in a fresh folder; gone on leaving, unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="forgetting-demo-"))
    serving: Serving | None = None
    try:
        data = folder / "data"
        data.mkdir()
        with progress.bar(err, "Writing the dataset and the corpus"):
            n_documents = sweep.write_data(data)
        err.print(
            f"{sweep.N_ROWS} dialogues to fine-tune on; {n_documents} documents of the standard "
            "library, unseen by the base, to measure forgetting on",
        )
        with progress.bar(err, "Starting service, worker and broker") as say:
            serving = Serving(folder, model_root=BASE.parent, data_root=data)
            for what in serving.wait_ready():
                say(what)
        yield serving
        if keep:
            err.print(
                f"The service runs on at {serving.url}; state in {folder}. "
                f"Stop it with: kill {serving.process.pid}",
            )
            serving = None
    finally:
        if serving is not None:
            with progress.bar(err, "Stopping the service"), _undisturbed():
                serving.stop()
        if serving is not None or not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave processes behind."""
    before = [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for signum, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(signum, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.run", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="for the pictures")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON on stdout")
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
