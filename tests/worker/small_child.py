"""A child that follows the whole protocol around a job that takes no model: metadata says which.

Run as a script, it is what `python -m worker.run` is to a real job.
"""

import errno
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service import lifeline
from service.errors import DatasetUnreadable, SystemFault
from service.schemas.result import (
    Checkpoint,
    Cost,
    DeltaP,
    DocumentScore,
    Engine,
    Estimate,
    Forgetting,
    FtLoss,
    LoraFacts,
    NoiseFloor,
    Perplexity,
    Provenance,
    Result,
)
from service.schemas.spec import EvaluateSpec, Runnable
from service.settings import Settings
from worker import child

COMMAND = [sys.executable, __file__]


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
    report({"kind": "phase", "phase": "training"})
    report(
        {
            "kind": "log",
            "message": "started",
            "pid": os.getpid(),
            "adapters": sorted(adapters or {}),
            "runs": sorted({point["run"] for point in (law or {}).get("points", [])}),
        }
    )
    for deed in spec.metadata["does"].split():
        DEEDS[deed](workdir, report, stop)
    (workdir / "artifacts" / "deep").mkdir(exist_ok=True)
    (workdir / "artifacts" / "deep" / "kept.txt").write_text("kept")
    if isinstance(spec, EvaluateSpec):
        (workdir / "artifacts" / "result.json").write_text(result(spec).model_dump_json())
    return result(spec)


def wait(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    if stop.wait(60):
        raise Stopped


def ignore_everything(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    time.sleep(60)


def bear(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    offspring = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    report({"kind": "log", "message": "born", "pid": offspring.pid})


def nap(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    time.sleep(2)


def chatter(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    sys.stdout.write('{"kind": "failed"}\nnot json\n')
    sys.stdout.flush()
    os.write(1, b"[1]\n")
    report({"kind": "metric", "name": "train_loss", "step": 1, "value": float("nan")})
    for step in range(300):
        report({"kind": "progress", "done": step, "total": 300, "unit": "steps"})


def say(error: Exception) -> Any:
    def deed(workdir: Path, report: child.Report, stop: threading.Event) -> None:
        raise error

    return deed


def die(signum: int) -> Any:
    def deed(workdir: Path, report: child.Report, stop: threading.Event) -> None:
        os.kill(os.getpid(), signum)

    return deed


def die_once(workdir: Path, report: child.Report, stop: threading.Event) -> None:
    if workdir.name == "attempt-1":
        os.kill(os.getpid(), signal.SIGKILL)


DEEDS = {
    "nothing": lambda *_: None,
    "wait": wait,
    "ignore_everything": ignore_everything,
    "bear": bear,
    "nap": nap,
    "chatter": chatter,
    "die_killed": die(signal.SIGKILL),
    "die_crashed": die(signal.SIGSEGV),
    "die_once": die_once,
    "blame_user": say(DatasetUnreadable("line 3 is torn", param="dataset.path", line=3)),
    "miss_the_hub": say(SystemFault("the hub does not answer")),
    "break": say(ZeroDivisionError("a fault of our own")),
    "exhaust": say(MemoryError()),
    "fill_disk": say(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
}


def result(spec: Runnable) -> Result:
    """A whole result of one document, with made-up numbers that agree with each other; and of an
    evaluation's adapters, each one like the other."""
    one = Estimate(value=1.0, ci_reason="1 document; an interval needs 10")
    document = DocumentScore(
        index=0, title="", n_positions=1, kl=1, ce_soft=1, ce_hard=1, same_top=1,
        nll_base=1, nll_tuned=1,
    )  # fmt: skip
    candidates = spec.adapters if isinstance(spec, EvaluateSpec) else []
    provenance = Provenance(
        base="sha256:0", tokenizer="sha256:0", adapter=None, corpus="sha256:0",
        dataset="sha256:0" if spec.dataset else None,
        context=8, begins_with_bos=True, dtype="float32", device="cpu", engine="transformers",
        route="identity", scoring_version=2, window_rule="made", versions={}, seed=1,
        base_revision=None, dataset_format=None, corpus_kind="text",
    )  # fmt: skip
    forgetting = Forgetting(
        kl=one, ce_soft=one, ce_hard=one, same_top=one, same_top5=one, nll_base=one, nll_tuned=one,
        kl_reverse=None, h_base=0.0, kl_percentiles={"median": 1.0}, delta_p=DeltaP(mean=0, rms=0),
        ppl=Perplexity(base=1, tuned=1, ln_ratio=0), by_confidence=[],
    )  # fmt: skip
    checkpoints = [
        Checkpoint(
            step=candidate.step, adapter="theirs", rank=4, trainable_params=100,
            ft_loss=FtLoss(train=None, heldout=2.0), forgetting=forgetting, delta_norm=1.0,
            lora=LoraFacts(
                peft="lora", target_modules=["q_proj"], all_linear=False, use_rslora=True,
                lora_alpha=1, lora_dropout=0,
            ),
        )
        for candidate in candidates
    ]  # fmt: skip
    return Result(
        **dict(forgetting), documents=[document],
        n_documents=1, n_windows=1, n_positions=1, ft_loss=FtLoss(train=None, heldout=None),
        checkpoints=checkpoints, worst_windows=[], worst_tokens=[], law=None,
        engine=Engine(name="transformers", reason="asked"),
        noise_floor=NoiseFloor(kl=0, max_abs=0, n_positions=1), parity=None, provenance=provenance,
        cost=Cost(base_forward_tokens=1, tuned_forward_tokens=1, training_tokens=0, seconds={}),
        warnings=[],
    )  # fmt: skip


if __name__ == "__main__":
    if os.environ.get("SMALL_CHILD_IS_DEAF"):
        # The negative control: nobody listens for the end of the lifeline.
        lifeline.lines = lambda *_: queue.SimpleQueue()
    child.main(lambda: (execute, Stopped))
