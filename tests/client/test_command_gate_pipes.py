"""What stands around the command: pipes that close, disks that are full, streams that are not
there. None of it turns into 0 or 1, and none of it hides a verdict."""

import subprocess

import pytest

from tests.client.gated import FORGETTING, ended, environment

BROKEN = "raise RuntimeError('a fault of our own')\n"


def shell(line: str, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    options = {"shell": True, "executable": "/bin/bash", "capture_output": True, "text": True}
    buffered = environment(url, **{"PYTHONUNBUFFERED": "", **more})
    return subprocess.run(line, env=buffered, timeout=90, **options)


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1)])
def test_a_reader_that_leaves_changes_no_verdict(service, address, verdict, code) -> None:
    gate = ended(service, verdict)
    ran = shell(f"{FORGETTING} gate {gate} | true; exit ${{PIPESTATUS[0]}}", address)
    assert (ran.returncode, ran.stderr) == (code, "")
    ran = shell(f"{FORGETTING} gate {gate} >&-", address)
    assert (ran.returncode, ran.stderr) == (code, "")


@pytest.mark.parametrize(("verdict", "code"), [("pass", 4), ("fail", 1)])
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_full_disk_is_no_pass(service, address, verdict, code, option) -> None:
    ran = shell(f"{FORGETTING} gate {ended(service, verdict)} {option} >/dev/full", address)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr == "Error: the verdict was not written: No space left on device.\n"


def test_prose_that_cannot_be_written_is_missed_and_nothing_else(service, address) -> None:
    ran = shell(f"{FORGETTING} gate {ended(service, 'pass')} 2>/dev/full", address)
    assert ran.returncode == 0
    assert "VERDICT: PASS (exit 0)" in ran.stdout
    ran = shell(f"{FORGETTING} gate gate_1 2>/dev/full", address)
    assert ran.returncode == 2
    ran = shell(f"{FORGETTING} gate gate_1 2>&-", address)
    assert ran.returncode == 2


def test_a_terminal_of_ascii_shows_the_table(service, address) -> None:
    gate = ended(service, "pass")
    ran = shell(f"{FORGETTING} gate {gate}", address, PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert "? 0.08" in ran.stdout


def test_help_into_a_closed_pipe_is_no_verdict() -> None:
    for words, codes in (("--help", {0, 4}), ("gate --help", {0, 141})):
        line = f"{FORGETTING} {words} | true; exit ${{PIPESTATUS[0]}}"
        assert shell(line, "http://x").returncode in codes
    assert shell(f"{FORGETTING} gate --help >/dev/full", "http://x").returncode == 4


def test_a_fault_of_our_own_is_exit_4(service, address, tmp_path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text(BROKEN)
    path = f"{tmp_path}:{environment('')['PYTHONPATH']}"
    ran = shell(f"{FORGETTING} gate {ended(service, 'fail')}", address, PYTHONPATH=path)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "a fault of our own" in ran.stderr
    assert ran.stderr.endswith("A fault of this command; it says nothing of any adapter.\n")
