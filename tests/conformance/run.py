"""One run of schemathesis against a service that is there."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.conformance.served import KEY, Served

PHASES = ("examples", "coverage", "fuzzing", "stateful")
CHECKS = Path(__file__).with_name("schemathesis.toml")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Report:
    phases: dict[str, str]
    """Those that were asked for, and how they ended: `success` or not."""
    n_operations: int
    n_cases: int
    failures: list[Any]
    errors: list[Any]
    said: str
    """All that it printed."""


def hold(
    at: Served,
    folder: Path,
    *,
    with_key: bool,
    phases: Sequence[str] = PHASES,
    max_examples: int = 10,
    seed: int = 17,
    change: Callable[[Any], None] = lambda document: None,
) -> Report:
    """`max_examples`: per operation and phase, but for `coverage`, which has as many as it takes.

    `change` makes another document of the service's own. Files go to `folder`.
    """
    key = {"Authorization": f"Bearer {KEY}"}
    body = httpx2.get(f"{at.url}/openapi.json", headers=key, timeout=300).json()
    change(body)
    document, report = folder / "openapi.json", folder / "report.json"
    document.write_text(json.dumps(body))
    config = folder / "schemathesis.toml"
    config.write_text(CHECKS.read_text() + dictionaries(at.ids))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["run", str(document), "--url", at.url, "--checks", "all", "--no-color"]
    command += ["--request-timeout", "300"]
    command += ["--phases", ",".join(phases), "--max-examples", str(max_examples)]
    command += ["--seed", str(seed), "--generation-deterministic"]
    command += ["--report", "json", "--report-json-path", str(report)]
    if with_key:
        command += ["-H", f"Authorization: {key['Authorization']}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert report.exists(), said
    found = json.loads(report.read_text())
    return Report(
        phases={name: found["phases"][name]["status"] for name in phases},
        n_operations=found["operations"]["tested"],
        n_cases=found["test_cases"]["generated"],
        failures=found["failures"],
        errors=found["errors"],
        said=said,
    )


def dictionaries(ids: Mapping[str, Sequence[str]]) -> str:
    """TOML."""
    tables = (f"[dictionaries.{name}]\nvalues = {json.dumps(i)}\n" for name, i in ids.items())
    return "\n" + "\n".join(tables)
