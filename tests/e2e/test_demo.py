"""The demo as a process: what it leaves behind when it cannot go on, or is told not to."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.house import ROOT


@contextlib.contextmanager
def demo(folder: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m demo.run` whose temporary folder is `folder`; whatever it left is ended."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("FORGETTING_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.run", "--out", str(folder / "pictures")],
        cwd=ROOT,
        env=own | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"} | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = threading.Timer(150, process.kill)
    late.start()
    try:
        yield process
    finally:
        late.cancel()
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return said
    raise AssertionError("".join(said))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_a_run_it_leaves_nothing(tmp_path: Path, ending: signal.Signals) -> None:
    with demo(tmp_path) as process:
        lines_until(process, "training")
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("worker.run" in " ".join(one.cmdline()) for one in family)
        process.send_signal(ending)
        said = lines_until(process, "Interrupted.")
        assert process.wait(30) == 130
        assert "Traceback" not in "".join(said)
        _, left = psutil.wait_procs(family, timeout=15)
    assert left == []
    assert list(tmp_path.glob("forgetting-demo-*")) == []


def test_without_a_broker_it_says_so_and_fails(tmp_path: Path) -> None:
    with demo(tmp_path, FORGETTING_REDIS_URL="redis://127.0.0.1:9/0") as process:
        said = lines_until(process, "FORGETTING_REDIS_URL")
        assert any("The demo failed: The service ended with 1" in line for line in said)
        assert process.wait(30) == 1
    assert list(tmp_path.glob("forgetting-demo-*")) == []
