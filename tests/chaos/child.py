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

from service.errors import DatasetUnreadable
from service.schemas.result import Checkpoint, Forgetting, FtLoss, Result
from service.schemas.spec import Runnable
from service.settings import Settings
from tests.worker.small_child import result
from worker import child

COMMAND = [sys.executable, "-m", "tests.chaos.child"]
LEDGER = "CHAOS_LEDGER"
LONGEST_SECONDS = 0.4


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
) -> Result:
    assert stop is not None
    for phase in ("loading", "training", "scoring_base", "scoring_tuned"):
        report({"kind": "phase", "phase": phase})
        if stop.wait(random.uniform(0, LONGEST_SECONDS / 4)):
            raise Stopped
    deed = spec.metadata["deed"]
    if deed == "blame":
        raise DatasetUnreadable("line 3 is torn", param="dataset.path")
    if deed == "die" or (deed == "die_once" and workdir.name == "attempt-1"):
        os.kill(os.getpid(), signal.SIGKILL)
    (workdir / "artifacts" / "kept.txt").write_text(spec.metadata["deed"])
    with Path(os.environ[LEDGER]).open("a") as ledger:
        ledger.write(f"{workdir.parent.name} {workdir.name}\n")
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
