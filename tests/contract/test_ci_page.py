"""docs/ci.md: each of its blocks is run, or parsed by what would read it."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.schemas.policy import Policy
from tests.client.pipelines import run_job, stand_in
from tests.client.test_github_action import lint

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text()
BLOCK = re.compile(r"^`([^`\n]+)`\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {name: body for name, _, body in BLOCK.findall(PAGE)}
TEMPLATE = ROOT / "clients" / "gitlab" / "forgetting.gitlab-ci.yml"
PROSE = "The river number {} runs past the old mill, and nobody remembers who built it. "
PLUGIN = ["-p", "forgetting_client.pytest_plugin"]
"""By name: a test must not hang on when this environment was installed."""


def test_every_block_is_a_file_of_the_layout() -> None:
    assert PAGE.count("```") == 2 * len(FILES)
    layout = PAGE.split("my-finetune/\n")[1].split("\n\n")[0]
    named = {line.split()[0] for line in layout.splitlines()}
    assert set(FILES) == named | {"pytest.ini"}


def written(folder: Path) -> Path:
    for name, body in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    return folder


def test_the_policy_is_one(tmp_path: Path) -> None:
    Policy.model_validate(yaml.safe_load(FILES["forgetting.yml"]))
    assert hook(written(tmp_path)).returncode == 0
    (tmp_path / "forgetting.yml").write_text(FILES["forgetting.yml"].replace("alpha", "alfa"))
    refused = hook(tmp_path)
    assert refused.returncode == 2
    assert "forgetting.yml:3:1" in refused.stdout + refused.stderr


def hook(folder: Path) -> subprocess.CompletedProcess[str]:
    """As pre-commit would run it, on those files of the layout that it matches."""
    [hook] = yaml.safe_load(FILES[".pre-commit-config.yaml"])["repos"][0]["hooks"]
    matched = [name for name in FILES if re.search(hook["files"], name)]
    assert matched == ["forgetting.yml"]
    line = hook["entry"].split()
    assert line[0] == "forgetting"
    command = [sys.executable, "-m", "forgetting_client", *line[1:], *matched]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )


def environment() -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "clients" / "python")))
    ours = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def test_the_workflow_passes_actionlint(tmp_path: Path) -> None:
    workflow = FILES[".github/workflows/adapter.yml"]
    ours = "your-org/forgetting/clients/action@main"
    assert ours in workflow
    linted = lint(tmp_path, workflow.replace(ours, "./clients/action"))
    assert linted.returncode == 0, linted.stdout


def gitlab_job() -> dict[str, Any]:
    """The job with what it extends, as GitLab merges them."""
    page = yaml.safe_load(FILES[".gitlab-ci.yml"])
    assert page["include"][0]["file"] == str(TEMPLATE.relative_to(ROOT))
    template = yaml.safe_load(TEMPLATE.read_text())
    job = page["adapter"]
    parent = template[job.pop("extends")]
    return {**parent, **job, "variables": {**parent["variables"], **job["variables"]}}


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5])
def test_the_gitlab_job_runs_the_gate_and_keeps_its_reports(tmp_path: Path, code: int) -> None:
    reports = "echo '<testsuites/>' > forgetting.xml; echo report > forgetting.md"
    path = stand_in(tmp_path / "bin", "python", 'printf "%s\\n" "$@" > pip.txt')
    gate = f'printf "%s\\n" "$@" > line.txt; env > env.txt; {reports}; exit {code}'
    stand_in(tmp_path / "bin", "forgetting", gate)
    job = gitlab_job()
    ran = run_job(job, tmp_path, path, FORGETTING_OPTIONS="--set seed=3")
    assert ran.returncode == code, ran.stderr
    assert (tmp_path / "pip.txt").read_text().split()[-1] == "forgetting-client"
    assert (tmp_path / "line.txt").read_text().splitlines() == [
        *("gate", "--adapter", "out/adapter", "--base", "Qwen/Qwen3-0.6B"),
        *("-c", "forgetting.yml", "--timeout", "3600"),
        *("--junit", "forgetting.xml", "--markdown", "forgetting.md", "--set", "seed=3"),
    ]
    assert "FORGETTING_URL=https://forgetting.example.com" in (tmp_path / "env.txt").read_text()
    kept = job["artifacts"]
    assert kept["when"] == "always"
    for name in (kept["reports"]["junit"], *kept["paths"]):
        assert (tmp_path / name).is_file()


def test_a_gitlab_job_whose_installation_fails_is_4(tmp_path: Path) -> None:
    path = stand_in(tmp_path / "bin", "python", "exit 1")
    assert run_job(gitlab_job(), tmp_path, path).returncode == 4


def test_the_pytest_settings_and_the_test_are_known_to_pytest(tmp_path: Path) -> None:
    """The page's server does not exist, which is an error and no failure."""
    written(tmp_path)
    ini = configparser.ConfigParser()
    ini.read_string(FILES["pytest.ini"])
    assert {name.partition("_")[0] for name in ini["pytest"]} == {"forgetting"}
    line = [sys.executable, "-m", "pytest", "--strict-config", "-p", "no:cacheprovider", "tests"]
    unreachable = ["--forgetting-server", "http://127.0.0.1:9", *PLUGIN]
    ran = subprocess.run(
        [*line, *unreachable], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "failed" not in ran.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The repository after its training script, on a CPU and with fewer steps."""
    folder = written(tmp_path_factory.mktemp("my-finetune"))
    shutil.copytree(tiny_base, folder / "Qwen" / "Qwen3-0.6B")
    rows = [{"text": f"The mill number {i} grinds the corn of the valley."} for i in range(40)]
    for name, part in (("train.jsonl", rows[:32]), ("held-out.jsonl", rows[32:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "wikitext.txt").write_text("\f".join(PROSE.format(i) * 9 for i in range(40)))
    script = FILES["train.py"].replace("max_steps=100", "max_steps=30, use_cpu=True, bf16=False")
    assert script != FILES["train.py"]
    (folder / "train.py").write_text(script)
    ran = called(folder, "train.py")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "forgetting/kl" in ran.stdout
    return folder


def called(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    hub = {"HF_HOME": str(folder / "hub")}
    return subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        env={**environment(), **hub},
        capture_output=True,
        text=True,
        timeout=280,
    )


def points(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "forgetting-points.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_script_keeps_its_adapter_and_writes_law_points(trained: Path) -> None:
    assert (trained / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert [point["step"] for point in points(trained)] == [10, 20, 30]


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_its_adapter_is_gated_here_green_and_red(trained: Path, outcome: str) -> None:
    text = FILES["forgetting.yml"].replace("alpha:", "context: 64\nalpha:")
    if outcome == "failed":
        limit = points(trained)[-1]["kl"] / 3
        text = text.replace("fail_above: 0.1, warn_above: 0.08", f"fail_above: {limit}")
    (trained / "forgetting.yml").write_text(text)
    line = ("-m", "pytest", "-p", "no:cacheprovider", "tests", *PLUGIN, "--forgetting-local")
    gated = called(trained, *line)
    assert f"1 {outcome}" in gated.stdout, gated.stdout
    assert ("VERDICT: FAIL (exit 1)" in gated.stdout) == (outcome == "failed")
