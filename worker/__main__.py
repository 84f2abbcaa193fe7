"""`python -m worker`: one Celery process per visible GPU, one in all without any, kept running.

`--one` is such a process. `--lifeline` says that stdin is held open by whoever started us and
that its end means that we should end too.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from service import lifeline
from service.errors import SystemFault
from service.keep import Kept, module_command, module_environment
from service.logs import configure_logs
from service.settings import settings

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""One of these device files exists wherever torch could see a GPU."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--one", action="store_true", help="one Celery process, no keeper")
    parser.add_argument("--lifeline", action="store_true", help="end when stdin is closed")
    arguments = parser.parse_args()
    try:
        broker = settings().redis_url
    except SystemFault as fault:
        sys.exit(f"The worker cannot start: {fault.message}")
    if broker is None:
        sys.exit(
            "The worker needs the service's broker: set FORGETTING_REDIS_URL, "
            "or let `forgetting-service serve` start both."
        )
    configure_logs(settings())
    if arguments.one:
        run_one(has_lifeline=arguments.lifeline)
    else:
        run_all(has_lifeline=arguments.lifeline)


def run_all(*, has_lifeline: bool) -> None:
    """Starts the processes and returns when told to stop and all are gone."""
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    if has_lifeline:
        lifeline.watch(stop.set)
    places: list[str | None] = [*visible_gpus()] or [None]
    kept = [
        Kept(
            module_command("worker", "--one", "--lifeline"),
            name="the worker" if gpu is None else f"the worker on GPU {gpu}",
            environment=module_environment({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
        ).start()
        for gpu in places
    ]
    while not stop.wait(1.0):
        pass
    stopping = [
        threading.Thread(target=one.stop, args=(settings().leave_seconds,), name=f"stop {one.name}")
        for one in kept
    ]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()


def run_one(*, has_lifeline: bool, command: Sequence[str] | None = None) -> None:
    """One solo Celery worker in this process. Celery's own handlers take the signals.

    `command` runs a job; by default the real thing.
    """
    if has_lifeline:
        lifeline.watch(_end_softly)
    from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

    from worker.configure import configure

    # One warns root of pickled messages, where only JSON is accepted; the other speaks of late
    # acks, where acks are early.
    for category in (SecurityWarning, CPendingDeprecationWarning):
        warnings.simplefilter("ignore", category)
    app = configure(settings(), **({} if command is None else {"command": command}))
    place = os.environ.get("CUDA_VISIBLE_DEVICES") or "cpu"
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=solo",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--hostname={place}.{os.getpid()}@%h",
            "--loglevel=warning",
        ]
    )


def visible_gpus() -> list[str]:
    """One value of CUDA_VISIBLE_DEVICES per GPU, asked of torch in a process that ends again."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    code = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count = int(asked.stdout.split()[-1])
    names = named.split(",") if named else [str(index) for index in range(count)]
    return [name.strip() for name in names[:count]]


def _end_softly() -> None:
    """Our keeper is gone: release the job; but a broker that went with it must not hold us."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(settings().leave_seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
