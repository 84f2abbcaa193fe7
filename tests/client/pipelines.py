"""GitHub's and GitLab's runners, as far as our templates need them: real bash, real environment."""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass
class Runner:
    """A composite action's steps, one after another, as GitHub runs them."""

    action: Path
    """Folder with action.yml."""
    folder: Path
    """The checkout that the job runs in."""
    path: str
    """PATH of the runner."""
    environment: dict[str, str] = field(default_factory=dict)
    said: str = ""
    summary: str = ""

    def __call__(self, **inputs: str) -> tuple[int, dict[str, str]]:
        """Exit code of the step that failed, or 0; and the action's outputs."""
        body = yaml.safe_load((self.action / "action.yml").read_text())
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        known = {
            f"inputs.{name}": given.pop(name, None) or str(about.get("default", ""))
            for name, about in body["inputs"].items()
        }
        assert not given, f"no such inputs: {sorted(given)}"
        known |= {"github.action_path": str(self.action), "github.token": "token-of-the-job"}
        known = {name: self._filled(value, known) for name, value in known.items()}
        code = 0
        for step in body["runs"]["steps"]:
            if not code and _holds(step.get("if"), known):
                code = self._run(step, known)
        outputs = {n: self._filled(about["value"], known) for n, about in body["outputs"].items()}
        return code, outputs

    def _run(self, step: dict[str, Any], known: dict[str, str]) -> int:
        assert EXPRESSION.search(step["run"]) is None, "an expression inside a script"
        assert step["shell"] == "bash"
        files = {
            name: self.folder.parent / f"{name}-{step['id']}"
            for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
        }
        for file in files.values():
            file.write_text("")
        script = self.folder.parent / f"{step['id']}.sh"
        script.write_text(step["run"])
        environment = {
            "PATH": self.path,
            "HOME": str(self.folder.parent),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "RUNNER_TEMP": str(self.folder.parent),
            **{name: str(file) for name, file in files.items()},
            **self.environment,
            **{name: self._filled(str(v), known) for name, v in step.get("env", {}).items()},
        }
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.said += ran.stdout + ran.stderr
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        for line in files["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, value = line.partition("=")
            known[f"steps.{step['id']}.outputs.{name}"] = value
        return ran.returncode

    def _filled(self, text: str, known: dict[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            names = [name.strip() for name in match[1].split("||")]
            return next((known[name] for name in names if known.get(name)), "")

        return EXPRESSION.sub(value, text)


def _holds(condition: str | None, known: dict[str, str]) -> bool:
    """`inputs.version != 'installed'`, the one form that is used."""
    if condition is None:
        return True
    name, different, value = condition.partition(" != ")
    assert different, condition
    return known[name] != value.strip("'")


def run_job(job: dict[str, Any], folder: Path, path: str, **variables: str) -> Any:
    """A GitLab job's scripts in one shell, as its runner does."""
    lines = ["set -eo pipefail", *job.get("before_script", []), *job["script"]]
    defaults = {name: str(value) for name, value in job["variables"].items()}
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "GITLAB_CI": "true", **defaults, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def stand_in(folder: Path, name: str, script: str) -> str:
    """PATH on which `name` is that shell script, before everything else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}/usr/bin:/bin"
