"""A gate in this process, with no service: what `forgetting gate --local` runs.

It checks at the door what the service checks, keeps what was scored under `.forgetting/` so that an
interrupted gate goes on, and shares its cache of base passes with the next one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.admission import admit
from service.digest import json_digest
from service.errors import ForgettingError, InvalidSpec, UserError
from service.field_faults import first, listing
from service.gate_reason import reason_of
from service.jobs import FailureClass, JobState
from service.present import rfc3339
from service.schemas.candidates import PathAdapter
from service.schemas.gate import Gate, GateResult
from service.schemas.spec import GateSpec
from service.settings import Settings
from service.settings import settings as process_settings
from worker import child

Report = Callable[[dict[str, Any]], None]


class LocalFault(Exception):
    """The gate could not be run. `problem` is a job's error, and has the `errors` by field."""

    def __init__(self, word: Mapping[str, Any], errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(word["detail"])
        self.problem = {**child.error_of(word), "errors": list(errors)}


def gate(spec: dict[str, Any], *, report: Report, roots: list[Path]) -> dict[str, Any]:
    """The JSON of `service.schemas.gate.Gate`, its id and job null. Paths in `spec` lie under
    `roots`, the working directory, or the roots that the environment names.

    Raises LocalFault; whatever is printed meanwhile goes to stderr.
    """
    created = time.time()
    settings = _settings(roots)
    with contextlib.redirect_stdout(sys.stderr):
        asked = _admitted(spec, settings)
        with _workdir(asked, settings) as workdir:
            result = _executed(asked, workdir, report, settings)
    return Gate(
        id=None,
        job=None,
        status=JobState.SUCCEEDED,
        phase=None,
        progress=None,
        verdict=result.verdict,
        exit_code=result.exit_code,
        reason=reason_of(result),
        error=None,
        base_model=asked.base_model,
        corpus=asked.evaluation.corpus,
        policy=asked.policy,
        result=result,
        created_at=rfc3339(created),
        finished_at=rfc3339(time.time()),
    ).model_dump(mode="json", by_alias=True)


def _settings(roots: Sequence[Path]) -> Settings:
    settings = process_settings()
    own = [path.resolve() for path in (*roots, Path.cwd())]
    return settings.model_copy(
        update={
            "model_roots": [*own, *settings.model_roots],
            "data_roots": [*own, *settings.data_roots],
        }
    )


def _admitted(body: Mapping[str, Any], settings: Settings) -> GateSpec:
    """As the service would admit it; only what no store is needed for."""
    try:
        spec = GateSpec.model_validate({"type": "gate", **body})
        for param, adapter in spec.every_adapter.items():
            if not isinstance(adapter, PathAdapter):
                said = f"{param} is kept by a service; without one give the path of a folder"
                raise InvalidSpec(said, param=param)
        admit(spec, settings)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        listed = listing(faults, body)
        param, said = first(listed)
        word = child.failed(InvalidSpec.code, FailureClass.USER, said, param=param or None)
        raise LocalFault(word, listed) from error
    except ForgettingError as error:
        blame = FailureClass.USER if isinstance(error, UserError) else FailureClass.SYSTEM
        word = child.failed(
            error.code, blame, error.message, param=error.param, details=error.details
        )
        raise LocalFault(word) from error
    return spec


@contextlib.contextmanager
def _workdir(spec: GateSpec, settings: Settings) -> Iterator[Path]:
    """The folder of this question, which an interrupted gate leaves and a finished one does not.
    While somebody else gates just this, a folder of our own."""
    digest = json_digest(spec.model_dump(mode="json")).removeprefix("sha256:")
    place = settings.home.resolve() / "local" / digest[:32]
    lock = None
    with contextlib.suppress(OSError):  # taken, or going away with the gate that ends just now
        lock = _locked(place)
    try:
        if lock is None:
            place = _beside(place)
        yield place
        # Out of the way at once: who begins meanwhile begins in a folder that nobody clears.
        shutil.rmtree(place.rename(_beside(place)), ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def _locked(place: Path) -> int:
    """A file in the folder, open: with it goes the lock. Raises OSError where another has it."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder takes it away: who then has the old file has nothing.
        if not os.path.samestat(os.fstat(lock), path.stat()):
            raise FileNotFoundError(path)
    except OSError:
        os.close(lock)
        raise
    return lock


def _beside(place: Path) -> Path:
    """A new folder, nobody else's."""
    return Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))


def _executed(spec: GateSpec, workdir: Path, report: Report, settings: Settings) -> GateResult:
    from worker.run import execute  # torch takes seconds: not before the spec was found good

    order = json.loads(child.order_line(spec.model_dump(mode="json"), workdir, {}, settings))
    word = child.carry_out(order, execute, report, threading.Event())
    if word["kind"] == child.RELEASED:
        word = child.failed(word["reason"], FailureClass.SYSTEM, "the disk is full")
    if word["kind"] == child.FAILED:
        raise LocalFault(word)
    return GateResult.model_validate_json((workdir / child.RESULT).read_bytes())
