"""The GitHub action: linted, and run step by step."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.client.pipelines import Runner, stand_in

ROOT = Path(__file__).parent.parent.parent
ACTION = ROOT / "clients" / "action"
BIN = Path(sys.executable).parent
ECHO = 'printf "%s\\n" "$@" > line.txt; env > env.txt; exit ${CODE:-0}'
WORKFLOW = """
on: pull_request
jobs:
  gate:
    runs-on: ubuntu-latest
    permissions: {contents: read, pull-requests: write}
    steps:
      - uses: actions/checkout@v5
      - id: gate
        uses: ./clients/action
        with: {WITH}
      - env:
          VERDICT: ${{ steps.gate.outputs.verdict }}
        run: echo "$VERDICT"
"""


def lint(project: Path, workflow: str) -> subprocess.CompletedProcess[str]:
    folder = project / ".github" / "workflows"
    folder.mkdir(parents=True, exist_ok=True)
    (project / ".git").mkdir(exist_ok=True)
    shutil.copytree(ACTION, project / "clients" / "action", dirs_exist_ok=True)
    (folder / "gate.yml").write_text(workflow)
    line = [str(BIN / "actionlint"), "-shellcheck", str(BIN / "shellcheck"), "-no-color"]
    return subprocess.run(line, cwd=project, capture_output=True, text=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


def test_actionlint_knows_its_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = "{adapter: out, base: b, comment: true}"
    good = lint(tmp_path, WORKFLOW.replace("{WITH}", inputs))
    assert good.returncode == 0, good.stdout
    for wrong in ("{adapter: out}", "{adapter: out, base: b, polcy: p}"):
        assert lint(tmp_path, WORKFLOW.replace("{WITH}", wrong)).returncode == 1
    renamed = WORKFLOW.replace("{WITH}", inputs).replace("outputs.verdict", "outputs.verdit")
    assert lint(tmp_path, renamed).returncode == 1


def test_actionlint_and_shellcheck_find_nothing_in_its_steps(tmp_path: Path) -> None:
    """actionlint reads no action's steps, so they are given to it as a workflow's."""
    good = lint(tmp_path, as_workflow(steps()))
    assert good.returncode == 0, good.stdout
    injected = steps()
    injected[-1]["run"] += "echo ${{ github.event.pull_request.title }}\n"
    assert "potentially untrusted" in lint(tmp_path, as_workflow(injected)).stdout
    unquoted = steps()
    unquoted[-1]["run"] += "cat $ADAPTER\n"
    assert "SC2086" in lint(tmp_path, as_workflow(unquoted)).stdout


def steps() -> list[dict[str, Any]]:
    return yaml.safe_load((ACTION / "action.yml").read_text())["runs"]["steps"]


def as_workflow(listed: list[dict[str, Any]]) -> str:
    inputs = yaml.safe_load((ACTION / "action.yml").read_text())["inputs"]
    typed = {name: {"type": "string"} for name in inputs}
    jobs = {"gate": {"runs-on": "ubuntu-latest", "steps": listed}}
    return json.dumps({"on": {"workflow_call": {"inputs": typed}}, "jobs": jobs})


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 130])
def test_the_exit_code_is_passed_on(checkout: Path, code: int) -> None:
    path = stand_in(checkout.parent / "bin", "forgetting", f"exit {code}")
    found, outputs = Runner(ACTION, checkout, path)(adapter="a", base="b", version="installed")
    assert (found, outputs["exit-code"]) == (code, str(code))


@pytest.mark.parametrize("script", ["exit 77", "kill -9 $$", None])
def test_what_is_no_verdict_is_4(checkout: Path, script: str | None) -> None:
    name = "forgetting" if script else "something-else"
    path = stand_in(checkout.parent / "bin", name, script or "")
    runner = Runner(ACTION, checkout, path)
    found, outputs = runner(adapter="a", base="b", version="installed")
    assert (found, outputs["exit-code"], outputs["verdict"]) == (4, "4", "not_measurable")
    assert "::error" in runner.said


def test_inputs_reach_the_command_and_nothing_else(checkout: Path) -> None:
    path = stand_in(checkout.parent / "bin", "forgetting", ECHO)
    hostile = "$(touch owned); `touch owned` \"; touch owned #' ${HOME}"
    given = {"adapter": hostile, "base": hostile, "policy": hostile, "junit": hostile}
    runner = Runner(ACTION, checkout, path)
    code, _ = runner(
        **given, server="http://s", api_key=hostile, comment="true", version="installed"
    )
    assert code == 0
    assert (checkout / "line.txt").read_text().splitlines() == [
        *("gate", "--adapter", hostile, "--base", hostile, "-c", hostile, "--timeout", "3600"),
        *("--server", "http://s", "--comment", "--junit", hostile),
    ]
    assert sorted(one.name for one in checkout.iterdir()) == ["env.txt", "line.txt"]
    environment = (checkout / "env.txt").read_text().splitlines()
    assert f"FORGETTING_API_KEY={hostile}" in environment
    assert "GITHUB_TOKEN=token-of-the-job" in environment
    assert hostile not in runner.said


def test_local_and_no_key(checkout: Path) -> None:
    path = stand_in(checkout.parent / "bin", "forgetting", ECHO)
    Runner(ACTION, checkout, path)(
        adapter="a", base="b", local="true", server="http://s", version="installed"
    )
    assert (checkout / "line.txt").read_text().splitlines()[-3:] == ["--timeout", "3600", "--local"]
    assert "FORGETTING_API_KEY" not in (checkout / "env.txt").read_text()


@pytest.mark.parametrize(
    ("given", "packages"),
    [
        ({}, ["{}/../python"]),
        ({"version": "0.1.0"}, ["forgetting-client==0.1.0"]),
        ({"local": "true"}, ["{}/../python", "{}/../..[worker]"]),
        ({"version": "0; touch owned"}, ["forgetting-client==0; touch owned"]),
    ],
)
def test_what_is_installed(checkout: Path, given: dict[str, str], packages: list[str]) -> None:
    """`python3` is a stand-in that makes stand-ins of itself: pip would need the network."""
    copies = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi'
    path = stand_in(checkout.parent / "bin", "python3", f'{copies}\nprintf "%s\\n" "$@" > line.txt')
    Runner(ACTION, checkout, path)(adapter="a", base="b", **given)
    line = (checkout / "line.txt").read_text().splitlines()
    assert line[:4] == ["-m", "pip", "install", "--quiet"]
    assert line[5:] == [package.format(ACTION) for package in packages]


@pytest.mark.parametrize("broken", ["-c", "venv", "pip"])
def test_an_installation_that_fails_is_4(checkout: Path, broken: str) -> None:
    copies = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi'
    fails = f'for word in "$@"; do if [ "$word" = "{broken}" ]; then exit 1; fi; done'
    path = stand_in(checkout.parent / "bin", "python3", f"{fails}\n{copies}")
    runner = Runner(ACTION, checkout, path)
    code, outputs = runner(adapter="a", base="b")
    assert (code, outputs["exit-code"], outputs["verdict"]) == (4, "4", "not_measurable")
    assert "::error title=Forgetting gate::" in runner.said


def test_the_client_beside_the_action_is_installed_for_real(checkout: Path) -> None:
    """Without network: its dependencies, and what builds it, are this environment's."""
    repository = checkout.parent / "repository"
    shutil.copytree(ACTION, repository / "clients" / "action")
    shutil.copytree(
        ROOT / "clients" / "python",
        repository / "clients" / "python",
        ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"),
    )
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as "no isolation"
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
    }
    python = stand_in(checkout.parent / "bin", "python3", f'exec {sys.executable} "$@"')
    runner = Runner(repository / "clients" / "action", checkout, python, environment=offline)
    code, outputs = runner(adapter="./missing", base="b", server="http://127.0.0.1:9")
    installed = checkout.parent / "forgetting-venv" / "bin" / "forgetting"
    assert installed.is_file(), runner.said
    assert (code, outputs["exit-code"]) == (2, "2"), runner.said
