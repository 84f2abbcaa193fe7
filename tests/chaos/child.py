"""A job that takes a moment and no model, around the real protocol of a child.

It notes every execution in a ledger, beside and independent of the database.
"""

import os
import random
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.errors import DatasetUnreadable
from service.schemas.result import Checkpoint, Forgetting, FtLoss, Result
from service.schemas.spec import EvaluateSpec, Runnable
from service.settings import Settings
from tests.worker.small_child import result
from worker import child

COMMAND = [sys.executable, "-m", "tests.chaos.child"]
LEDGER = "CHAOS_LEDGER"
LONGEST_SECONDS = 0.4
PHASES = ("loading", "training", "scoring_base", "scoring_tuned")
"""With the deed `hold` it waits in each for as long as there is a file `hold-<phase>`, and in the
last also for `hold`."""


class Stopped(Exception):
    """What `execute` raises when it was asked to stop."""


def execute(
    spec: Runnable,
    workdir: Path,
    report: child.Report,
    *,
    adapters: Mapping[str, Path] | None = None,
    stop: threading.Event | None = None,
    settings: Settings | None = None,
    law: Mapping[str, Any] | None = None,
) -> Result:
    assert stop is not None
    deed = spec.metadata["deed"]
    place = Path(os.environ[LEDGER]).parent
    for phase in PHASES:
        report({"kind": "phase", "phase": phase})
        if stop.wait(random.uniform(0, LONGEST_SECONDS / len(PHASES))):
            raise Stopped
        held = [place / f"hold-{phase}"] + ([place / "hold"] if phase == PHASES[-1] else [])
        while deed == "hold" and any(flag.exists() for flag in held):
            if stop.wait(0.05):
                raise Stopped
    if deed == "blame":
        raise DatasetUnreadable("line 3 is torn", param="dataset.path")
    if deed == "die" or (deed == "die_once" and workdir.name == "attempt-1"):
        os.kill(os.getpid(), signal.SIGKILL)
    (workdir / "artifacts" / "kept.txt").write_text(spec.metadata["deed"])
    with Path(os.environ[LEDGER]).open("a") as ledger:
        ledger.write(f"{workdir.parent.name} {workdir.name}\n")
    if isinstance(spec, EvaluateSpec):
        found = result(spec)
        (workdir / "artifacts" / child.RESULT).write_text(found.model_dump_json())
        return found
    return measured(spec)


def measured(spec: Runnable) -> Result:
    """One law point, so that a doubled result would be seen in the laws too."""
    made = result(spec)
    checkpoint = Checkpoint(
        step=1,
        adapter="checkpoints/step-000001",
        rank=4,
        trainable_params=100,
        ft_loss=FtLoss(train=1.0, heldout=2.0),
        forgetting=Forgetting(**{name: getattr(made, name) for name in Forgetting.model_fields}),
    )
    return made.model_copy(update={"checkpoints": [checkpoint]})


if __name__ == "__main__":
    child.main(lambda: (execute, Stopped))
