"""The child's side: one attempt in a process of its own, so that its memory always comes back.

In: one JSON line on stdin, which then stays open as the lifeline. Out: one JSON event per line
on what was stdout at the start; whatever libraries print goes to stderr, the attempt's log.
The last event is the child's word: succeeded, failed or released. No word means that it died.
A child that was asked to stay, and succeeded, says so in its word and waits for another order.
"""

import errno
import functools
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter
from safetensors import SafetensorError

from service import lifeline, logs
from service.columns import finite
from service.errors import ForgettingError, SystemFault, UserError
from service.jobs import FailureClass, Phase
from service.logs import configure_logs
from service.schemas.gate import GateResult
from service.schemas.result import Result
from service.schemas.spec import Runnable
from service.settings import Settings

RESULT = "result.json"
LOG = "child.log"
STAY = "stay"
"""Of an order: whether to wait for another one once it succeeded."""
SUCCEEDED, FAILED, RELEASED = "succeeded", "failed", "released"
DISK_FULL = "disk_full"
"""Not the job's fault: it is released, and tried again after a while."""
DISK_FULL_WORDS = re.compile(
    rf"{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EDQUOT)}"  # safetensors
    r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"  # torch.save
    r"|\d+ requested and \d+ written"  # numpy.save
)
WORDS = frozenset({SUCCEEDED, FAILED, RELEASED})
RETRY = "retry"
"""Of a failed word: what failed may work next time."""
STAYS = "stays"
"""Of a succeeded word: the child waits for the next order, with what it has loaded."""

Report = Callable[[dict[str, Any]], None]


class Execute(Protocol):
    """The whole job as one function; worker.run.execute is the real one."""

    def __call__(
        self,
        spec: Runnable,
        workdir: Path,
        report: Report,
        *,
        adapters: Mapping[str, Path] | None = None,
        stop: threading.Event | None = None,
        settings: Settings | None = None,
        law: Mapping[str, Any] | None = None,
    ) -> Result | GateResult: ...


def real_job() -> tuple[Execute, type[Exception]]:
    """The job, and what it raises when it was asked to stop. Imported late: torch takes seconds."""
    from worker.loaded import Loaded
    from worker.run import execute
    from worker.train import Released

    return functools.partial(execute, loaded=Loaded()), Released


def main(load: Callable[[], tuple[Execute, type[Exception]]] = real_job) -> None:
    """Runs the order that stdin brings, and while it stays each one that follows."""
    report = _reporter()
    line = lifeline.read_line()
    if not line:
        return
    orders = lifeline.lines(end_group)
    stop = threading.Event()

    def asked_to_stop(*_: object) -> None:
        stop.set()
        orders.put(b"")  # one that waits for an order has nothing to bring to an end

    signal.signal(signal.SIGTERM, asked_to_stop)
    order = json.loads(line)
    configure_logs(Settings(**order["settings"]), level=logging.INFO)
    report({"kind": "phase", "phase": Phase.LOADING})  # torch takes seconds: a sign of life
    execute, released = load()
    while line:
        order = json.loads(line)
        logs.job_id.set(order["job"])
        try:
            word = carry_out(order, execute, report, stop)
        except released:
            word = {"kind": RELEASED}
        stays = bool(order[STAY]) and word["kind"] == SUCCEEDED and not stop.is_set()
        report(word | ({STAYS: True} if stays else {}))
        line = orders.get() if stays else b""
        if line:
            _log_to(Path(json.loads(line)["workdir"]) / LOG)
            report({"kind": "phase", "phase": Phase.LOADING})


def order_line(
    spec: dict[str, Any],
    workdir: Path,
    adapters: Mapping[str, Path],
    settings: Settings,
    *,
    job_id: str | None = None,
    stay: bool = False,
    law: Mapping[str, Any] | None = None,
) -> bytes:
    """What the parent writes. The child needs no keys and no addresses, so it gets none; what of
    the store it needs, adapters and a recipe's `law`, is brought to it."""
    secrets = {"api_key", "key_pepper", "database_url", "redis_url", "artifacts_url"}
    shown = settings.model_dump(mode="json", exclude=secrets) | {
        "home": str(settings.home.resolve()),
        "allow_hub": settings.allow_hub is not False,  # which ids, was asked at the door
        "hub_allow": [],
    }
    order = {
        "job": job_id,
        "spec": spec,
        "workdir": str(workdir),
        "adapters": {name: str(path) for name, path in adapters.items()},
        "law": law,
        "settings": shown,
        STAY: stay,
    }
    return json.dumps(order).encode() + b"\n"


def carry_out(
    order: dict[str, Any], execute: Execute, report: Report, stop: threading.Event
) -> dict[str, Any]:
    """Runs the order and returns the last word. Exceptions that nobody foresaw pass through."""
    workdir = Path(order["workdir"])
    try:
        result = execute(
            TypeAdapter[Runnable](Runnable).validate_python(order["spec"]),
            workdir,
            report,
            adapters={name: Path(path) for name, path in order["adapters"].items()},
            stop=stop,
            settings=Settings(**order["settings"]),
            law=order["law"],
        )
        write_atomically(workdir / RESULT, result.model_dump_json())
    except ForgettingError as error:
        blame = FailureClass.USER if isinstance(error, UserError) else FailureClass.SYSTEM
        word = failed(error.code, blame, error.message, param=error.param, details=error.details)
        return word | {RETRY: isinstance(error, SystemFault)}
    except MemoryError as error:
        return _out_of_memory(error)
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_disk_full(error):
            logging.getLogger(__name__).error("disk full: %s", error)
            return {"kind": RELEASED, "reason": DISK_FULL}
        if not _is_out_of_memory(error):
            raise
        return _out_of_memory(error)
    return {"kind": SUCCEEDED}


def failed(
    code: str,
    blame: FailureClass,
    detail: str,
    *,
    param: str | None = None,
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The failed word, which without its kind is the job's error."""
    return {
        "kind": FAILED,
        "code": code,
        "class": blame.value,
        "detail": detail,
        "param": param,
        "details": details or {},
    }


def error_of(word: Mapping[str, Any]) -> dict[str, Any]:
    """A failed word as the job's `error`."""
    return {key: value for key, value in word.items() if key not in ("kind", RETRY)}


def is_disk_full(error: BaseException | None) -> bool:
    """It, or what it came from. Libraries that write by themselves tell it in words only."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if DISK_FULL_WORDS.search(str(error)):
        return True
    return is_disk_full(error.__cause__ or error.__context__)


def write_atomically(path: Path, text: str) -> None:
    """The file is whole or absent, also after a power cut."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def end_group() -> None:
    """SIGKILL for this process and what it started: nobody is left who could want its work."""
    leads = os.getpgrp() == os.getpid()
    (os.killpg if leads else os.kill)(os.getpid(), signal.SIGKILL)


def _reporter() -> Report:
    """Keeps stdout for events and sends every other print to stderr."""
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def report(event: dict[str, Any]) -> None:
        data = json.dumps(finite(event), allow_nan=False).encode() + b"\n"
        with lock:
            while data:
                data = data[os.write(events, data) :]

    return report


def _log_to(path: Path) -> None:
    """From here on prints belong to another attempt."""
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _is_out_of_memory(error: Exception) -> bool:
    # By name: torch's CUDA error has a class, its CPU allocator raises a plain RuntimeError.
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _out_of_memory(error: BaseException) -> dict[str, Any]:
    said = str(error).strip().splitlines()
    advice = "set a smaller training.micro_batch_size, max_length or context"
    detail = f"out of memory ({said[0] if said else type(error).__name__}); {advice}"
    return failed("out_of_memory", FailureClass.SYSTEM, detail)
