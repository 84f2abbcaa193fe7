"""The installed command in a process of its own: signals, pipes, terminals, start-up."""

import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pytest

FORGETTING = str(Path(sys.executable).with_name("forgetting"))


def environment(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "FORGETTING_API_KEY"}
    return {**kept, "FORGETTING_URL": url, "PYTHONUNBUFFERED": "1"}


def run(url: str, *args: str, **options) -> subprocess.CompletedProcess[str]:
    line = [FORGETTING, *args]
    return subprocess.run(
        line, env=environment(url), capture_output=True, text=True, timeout=60, **options
    )


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_job_over_a_real_socket(service, address) -> None:
    submitted = run(address, "jobs", "submit", "-", input=json.dumps(service.spec))
    assert (submitted.returncode, submitted.stderr[:6]) == (0, "Queued")
    job_id = submitted.stdout.strip()
    service.finish(service.start(), 0.0125)
    watched = run(address, "jobs", "watch", job_id)
    assert watched.returncode == 0
    assert "kl        0.01250  [0.01125, 0.01375]" in watched.stdout
    shown = run(address, "jobs", "show", job_id, "--json")
    assert json.loads(shown.stdout)["status"] == "succeeded"


@pytest.mark.parametrize("args", [["jobs", "list"], ["doctor"], ["jobs", "watch", "job_1"]])
def test_no_server_is_a_sentence_and_exit_4(args) -> None:
    ran = run(closed_port(), *args)
    assert ran.returncode == 4
    said = ran.stdout + ran.stderr
    assert "cannot be reached: Connection refused." in said
    assert "forgetting-service serve" in said
    assert "Traceback" not in said


def test_a_server_that_is_another_is_said_so(tmp_path: Path) -> None:
    line = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    other = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert other.stdout is not None
        port = other.stdout.readline().split()[5].decode()
        ran = run(f"http://127.0.0.1:{port}", "jobs", "list")
    finally:
        other.kill()
        other.communicate()
    assert ran.returncode == 2
    assert "404 File not found, but not with a problem as the forgetting service" in ran.stderr


def test_an_address_without_scheme_exits_2() -> None:
    ran = run("localhost:8000", "jobs", "list")
    assert ran.returncode == 2
    assert "write it with its scheme" in ran.stderr


def test_ctrl_c_stops_watching_and_not_the_job(service, address) -> None:
    job_id = service.submit()
    line = [FORGETTING, "jobs", "watch", job_id]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    watching = subprocess.Popen(line, env=environment(address), text=True, **pipes)
    assert watching.stdout is not None
    assert "queued" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert stderr.splitlines() == [
        "No worker lives; the job waits until one starts: forgetting-service worker",
        f"Stopped watching; {job_id} goes on. End it: forgetting jobs cancel {job_id}",
    ]
    assert service.client.job(job_id)["status"] == "queued"


def test_a_reader_that_leaves_is_no_fault(service, address) -> None:
    for _ in range(3):
        service.submit()
    line = f"{FORGETTING} jobs list --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    shell = {"shell": True, "executable": "/bin/bash", "capture_output": True, "text": True}
    ran = subprocess.run(line, env=environment(address), timeout=60, **shell)
    assert ran.stdout.startswith("[")
    assert ran.stdout.splitlines()[-1] in {"0", "141"}
    assert ran.stderr == ""


class Terminal:
    """The command on a terminal of 100 columns; `seen` is all that it wrote there."""

    def __init__(self, url: str, *args: str) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self._process = subprocess.Popen([FORGETTING, *args], env=environment(url), **streams)
        os.close(theirs)
        self.seen = ""

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            self._read()

    def finish(self) -> int:
        with suppress(OSError):  # the other end is closed
            while True:
                self._read()
        os.close(self._ours)
        return self._process.wait(timeout=30)

    def _read(self) -> None:
        self.seen += os.read(self._ours, 65_536).decode(errors="replace")


def test_a_terminal_gets_a_bar_and_lines_that_stay(service, address) -> None:
    job_id = service.submit()
    claim = service.start()
    events = [
        {"kind": "phase", "phase": "training"},
        {"kind": "progress", "done": 10, "total": 20, "unit": "steps"},
        {"kind": "metric", "name": "train_loss", "step": 10, "value": 2.5},
        {"kind": "checkpoint", "step": 10, "adapter": "a", "kl": 0.01},
    ]
    service.store.beat(claim, events)
    terminal = Terminal(address, "jobs", "watch", job_id)
    terminal.read_until("50%")
    service.finish(claim, 0.0125)
    assert terminal.finish() == 0
    for text in ("training 10/20 steps", "loss 2.500", "step 10: kl 0.01000", "succeeded after"):
        assert text in terminal.seen


def test_a_terminal_shows_a_sweep_child_by_child(service, address) -> None:
    sweep_id = service.submit(type="sweep", ranks=[4, 8], seeds=[17])
    first = service.start()
    service.store.beat(first, [{"kind": "phase", "phase": "scoring_base"}])
    terminal = Terminal(address, "jobs", "watch", sweep_id)
    terminal.read_until("rank 4: scoring base")
    service.finish(first)
    terminal.read_until("1/2 jobs")
    service.finish(service.start())
    assert terminal.finish() == 0
    for text in ("0/2 jobs", "rank 4: running", "rank 4: succeeded", "rank 8: succeeded"):
        assert text in terminal.seen


def test_help_waits_for_neither_http_nor_tables() -> None:
    code = (
        "import sys; from forgetting_client.command.app import app; "
        "print({'httpx2', 'rich', 'torch', 'pydantic'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "set()\n", ran.stderr


def test_python_dash_m_is_the_command() -> None:
    line = [sys.executable, "-m", "forgetting_client", "--version"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert ran.stdout == run("http://x", "--version").stdout
