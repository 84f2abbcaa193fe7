"""A worker whose home is a small disk. Run as a script, it is that worker, or its child.

The disk is a tmpfs in a mount namespace of the worker's own, gone when the worker ends.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from service.keep import module_command
from service.settings import Settings
from service.store import Store
from worker import child, tasks
from worker.presence import Presence
from worker.process import COMMAND

ROOT = Path(__file__).parent.parent.parent
MODULE = "tests.worker.small_disk"
SIZE_BYTES = 64 << 20
PAUSE_SECONDS = 0.5


def missing() -> str | None:
    """Why this machine cannot have such a disk; None where it can."""
    if shutil.which("unshare") is None:
        return "no `unshare` on PATH: apt-get install util-linux"
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    return f"no mount namespaces here: {made.stderr.strip()}" if made.returncode else None


def work(settings: Settings, *, free: int, then_room: bool = False, blind: bool = False) -> None:
    """Runs what is queued while `free` bytes are left; `then_room`: and again with all of them.

    `blind` is the negative control: a full disk is a fault like any other.
    """
    order = {"settings": settings.model_dump(mode="json")}
    order |= {"free": free, "then_room": then_room, "blind": blind}
    command = ["unshare", "-rm", *module_command(MODULE, json.dumps(order))]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=own, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr


def worker(order: dict[str, Any]) -> None:
    settings = Settings(**order["settings"])
    size = ["-o", f"size={SIZE_BYTES}"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "none", str(settings.home)], check=True)
    ballast = settings.home / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(settings.home).free - order["free"]))
    tasks.DISK_FULL_PAUSE_SECONDS = PAUSE_SECONDS
    store = Store(settings.database, settings)
    presence = Presence(store, "small-disk", every_seconds=1)
    command = module_command(MODULE, "child") if order["blind"] else COMMAND
    tasks.perform(store, presence=presence, settings=settings, command=command)
    if order["then_room"]:
        ballast.unlink()
        time.sleep(2 * PAUSE_SECONDS)
        tasks.perform(store, presence=presence, settings=settings, command=command)
    store.dispose()


def child_that_sees_no_full_disk() -> None:
    child.is_disk_full = lambda error: False
    child.main()


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child_that_sees_no_full_disk()
    else:
        worker(json.loads(sys.argv[1]))
