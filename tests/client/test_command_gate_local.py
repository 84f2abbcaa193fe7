"""`forgetting gate --local` as a process: found by entry points, which a distribution of the test's
own stands for, or missing."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.gated import POLICY, ended, environment, line, run

GATE = """
import json, pathlib, time

class Fault(Exception):
    def __init__(self, **problem):
        self.problem = problem

def gate(spec, *, report, roots):
    report({"kind": "phase", "phase": "scoring_tuned"})
    report({"kind": "progress", "done": 3, "total": 9, "unit": "windows"})
    wanted = spec["metadata"]["do"]
    if wanted == "refuse":
        raise AssertionError("refused after it began")
    if wanted == "wait":
        time.sleep(60)
    if wanted == "fail":
        raise Fault(**{"code": "corpus_unreadable", "class": "user", "detail": "no text in it"})
    if wanted == "torch":
        import a_torch_that_is_not_there
    return json.loads(pathlib.Path(wanted).read_text())
"""
OWN = "gate = own_gate:gate\nrender = service.gate_reports:render\n"


def installed(folder: Path, entry_points: str) -> str:
    """PYTHONPATH on which a distribution of the service's name has these entry points alone: the
    first of a name hides the others."""
    info = folder / "path" / "forgetting_service-9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetting-service\nVersion: 9\n")
    (info / "entry_points.txt").write_text(f"[forgetting.local]\n{entry_points}")
    (folder / "path" / "own_gate.py").write_text(GATE)
    return os.pathsep.join([str(folder / "path"), environment("")["PYTHONPATH"]])


def local(folder: Path, entry_points: str, *options: str, **named: str) -> Any:
    path = installed(folder, entry_points)
    return run(line("--local", *options, **named), "http://127.0.0.1:1", folder, PYTHONPATH=path)


@pytest.mark.parametrize("entry_points", ["", "gate = not_there:gate\n"])
def test_without_the_extra_it_says_what_to_install(tmp_path, entry_points) -> None:
    ran = local(tmp_path, entry_points)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "pip install 'forgetting-service[worker]'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("do", "code", "said"),
    [
        ("fail", 4, "no text in it"),
        ("torch", 4, "a_torch_that_is_not_there is missing"),
        ("refuse", 4, "it says nothing of any adapter"),
    ],
)
def test_a_fault_in_this_process_is_no_verdict(tmp_path, do, code, said) -> None:
    ran = local(tmp_path, OWN, "--set", f"metadata.do={do}")
    assert (ran.returncode, ran.stdout) == (code, "")
    assert "scoring tuned" in ran.stderr
    assert said in ran.stderr


def test_the_same_table_and_reports_as_from_a_service(service, address, tmp_path) -> None:
    gate = ended(service, "fail")
    there = run([*line()[:2], gate], address, tmp_path)
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({**service.client.gate(gate), "id": None, "job": None}))
    files = ["--junit", "gate.xml", "--set", f"metadata.do={answer}"]
    here = local(tmp_path, OWN, *files)
    assert here.returncode == there.returncode == 1
    assert here.stdout.splitlines()[1:] == there.stdout.splitlines()[1:]
    assert '<failure type="fail"' in (tmp_path / "gate.xml").read_text()


def test_the_time_limit_holds_here_too(tmp_path) -> None:
    ran = local(tmp_path, OWN, "--set", "metadata.do=wait", "--timeout", "1")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "There is no verdict after 1 s. What was scored is kept" in ran.stderr


def test_ctrl_c_says_that_what_was_scored_is_kept(tmp_path) -> None:
    (tmp_path / "forgetting.yml").write_text(POLICY)
    path = installed(tmp_path, OWN)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = line("--local", "--set", "metadata.do=wait")
    gating = subprocess.Popen(words, cwd=tmp_path, env=environment("", PYTHONPATH=path), **pipes)
    assert gating.stderr is not None
    while "scoring" not in gating.stderr.readline():
        assert gating.poll() is None
    gating.send_signal(signal.SIGINT)
    stdout, stderr = gating.communicate(timeout=30)
    assert (gating.returncode, stdout) == (130, "")
    assert "Stopped. What was scored is kept: the same command goes on from there." in stderr
