"""`forgetting doctor`: what works between here and the service, and what to do otherwise."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forgetting_client import __version__
from forgetting_client.command.faults import NOT_MEASURED, advice
from forgetting_client.command.output import clean, emit_json, show
from forgetting_client.command.session import session_of
from forgetting_client.command.size import size
from forgetting_client.errors import ForgettingError, Unauthorized
from forgetting_client.wire import ModelCheck, Readiness

if TYPE_CHECKING:
    from forgetting_client.client import ForgettingClient


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    found: str
    mend: str | None = None
    """What to do, where it is not ok."""


MEND = {
    "database": "Look at FORGETTING_DATABASE_URL and the service's log.",
    "broker": "Look at FORGETTING_REDIS_URL and the service's log.",
    "worker": "Start one: `forgetting-service worker`. Jobs wait in the queue until then.",
}


class Dtype(StrEnum):
    bfloat16 = "bfloat16"
    float32 = "float32"


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Also: may jobs use this base, and will it fit?")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    gpu_memory: Annotated[
        int | None,
        typer.Option(parser=size, metavar="SIZE", help="Of one worker's GPU, as 24GiB."),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="What the weights are loaded as.")] = Dtype.bfloat16,
    rank: Annotated[int, typer.Option(min=1, help="Of the LoRA to train.")] = 16,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a row.")] = 512,
) -> None:
    """Is everything between here and a finished job in order? Exits 4 if anything is not."""
    from forgetting_client.connection import Retry

    session = session_of(context)
    found = None
    with session.connect(retry=Retry(attempts=1)) as client:
        checks = [*own(), *service(client)]
        # Where no server answers, or not to us, that is all there is to say.
        if model is not None and checks[-1].ok:
            try:
                found = client.check_model(
                    model,
                    revision=revision,
                    dtype=dtype.value,
                    rank=rank,
                    max_length=max_length,
                    gpu_bytes=gpu_memory,
                )
            except ForgettingError as error:
                checks.append(Check("model", False, error.message, advice(error)))
            else:
                checks += lines(found)
    healthy = all(check.ok for check in checks)
    if session.as_json:
        body = {"ok": healthy, "server": client.url, "checks": [asdict(one) for one in checks]}
        emit_json(body if model is None else {**body, "model": found})
    else:
        show_checks(checks)
    if not healthy:
        raise typer.Exit(NOT_MEASURED)


def own() -> Iterator[Check]:
    from importlib.metadata import version

    yield Check("client", True, f"forgetting-client {__version__}")
    yield Check("python", True, platform.python_version())
    yield Check("httpx2", True, version("httpx2"))


def service(client: "ForgettingClient") -> Iterator[Check]:
    """Stops at the first thing without which the rest cannot be known."""
    try:
        health = client.health()
    except ForgettingError as error:
        yield Check("server", False, error.message, advice(error))
        return
    yield Check("server", True, f"{client.url}, version {health.get('version', 'unknown')}")
    try:
        yield from parts(client.ready())
    except ForgettingError as error:
        yield Check("ready", False, error.message, advice(error))
    try:
        list(client.jobs(limit=1))
    except Unauthorized as error:
        yield Check("key", False, error.message, advice(error))
    except ForgettingError as error:
        yield Check("jobs", False, error.message, advice(error))
    else:
        yield Check("key", True, "accepted")


def parts(ready: Readiness) -> Iterator[Check]:
    for name, check in ready["checks"].items():
        yield Check(name, check["ok"], check["detail"], None if check["ok"] else MEND.get(name))


def lines(found: ModelCheck) -> Iterator[Check]:
    for line in found["checks"]:
        yield Check(f"model {line['name']}", line["ok"], line["found"], line["mend"])


def show_checks(checks: list[Check]) -> None:
    from rich.text import Text

    wide = max(len(check.name) for check in checks)
    for check in checks:
        mark = ("ok  ", "green") if check.ok else ("FAIL", "bold red")
        show(Text.assemble(mark, f"  {check.name:<{wide}}  ", clean(check.found)))
        if check.mend:
            show(Text(f"      {' ' * wide}  {check.mend}", style="yellow"))
