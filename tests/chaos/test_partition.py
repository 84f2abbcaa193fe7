"""Many machines, as far as one can show it: namespaces with addresses, and a link that is cut."""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos.networks import machines, missing
from tests.chaos.parts import environment
from tests.e2e.house import ROOT


def test_a_worker_that_was_cut_off_comes_back_to_a_job_done_elsewhere() -> None:
    why = missing() if os.geteuid() == 0 else "network namespaces are for root"
    if why is not None:
        pytest.skip(why)
    with machines("service", "broker", "database", "one", "two") as found:
        given = [f"{m.name}={m.namespace}={m.address}" for m in found.values()]
        line = [sys.executable, "-m", "tests.chaos.partition", *given]
        ran = subprocess.run(
            found["service"].command(line),
            env=environment(ROOT),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "state": "succeeded",
        "attempt": 2,
        "failures": 1,
        "ends": 1,
        "unchanged": True,
        "points": 1,
    }
