"""What GitHub Actions shows of a gate: the step's summary, annotations, outputs, one comment.

Everything here is beside the verdict: where it fails, a warning says so and the exit code stays.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetting_client.command.gate_page import limit, metric, verdict_line
from forgetting_client.command.words import number
from forgetting_client.policy_file import Fault

if TYPE_CHECKING:
    import httpx2

SUMMARY_BYTES = 1_000_000
"""GitHub drops a step's summary above 1,024 KiB."""
LEAST_BYTES = 2_000
"""The shortest report of a gate."""
COMMENT_BYTES = 60_000
"""GitHub refuses a comment above 65,536 characters."""
PAGE, MAX_PAGES = 100, 50
LEVELS = {"pass": None, "warn": "warning", "inconclusive": "warning"}
"""Of an annotation, by the check's verdict; any other is an error."""


def in_actions() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def summary_room() -> int | None:
    """Bytes that are left for the step's summary; None where there is none. Raises OSError, and
    ValueError where it is full."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return None
    taken = Path(path).stat().st_size if Path(path).exists() else 0
    if SUMMARY_BYTES - taken < LEAST_BYTES:
        raise ValueError(f"{taken:,} bytes are in it already")
    return SUMMARY_BYTES - taken


def summarise(markdown: str) -> None:
    """Append to the step's summary. Raises OSError."""
    with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as file:
        file.write(markdown.encode("utf-8", "replace").decode() + "\n")


def outputs(verdict: str, code: int, gate: str | None) -> None:
    """For later steps: verdict, exit-code, gate. Raises OSError."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        facts = {"verdict": verdict, "exit-code": str(code), "gate": gate or ""}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write("".join(f"{name}={_one_line(one)}\n" for name, one in facts.items()))


def annotations(gate: Mapping[str, Any], code: int) -> list[str]:
    """Workflow commands: one per check that is not passed, and one for the gate."""
    found = []
    for check in (gate["result"] or {}).get("checks", ()):
        level = LEVELS.get(check["verdict"], "error")
        if level is None:
            continue
        level = "notice" if check["informational"] else level
        said = f"{metric(check)} is {number(check['value'])}, limit {limit(check)}"
        said += f": {check['reason']}"
        found.append(_command(level, f"forgetting gate: {check['id']}", said))
    level = LEVELS.get(gate["verdict"], "error") or "notice"
    said = f"{verdict_line(gate, code)}: {gate.get('reason')}"
    found.append(_command("error" if code else level, "forgetting gate", said))
    return found


def annotation_of(fault: Fault | str) -> str:
    """An error, at its place in the policy file where it has one."""
    if isinstance(fault, str):
        return _command("error", "forgetting gate", fault)
    place = {"file": fault.file, "line": str(fault.line), "col": str(fault.column)}
    said = f"{fault.param}: {fault.message}" if fault.param else fault.message
    return _command("error", "forgetting gate", said, **place)


def comment(markdown: str, *, name: str) -> None:
    """Write the pull request's one comment of this gate, or renew it.

    Raises OSError, httpx2.HTTPError, and ValueError, outside of a pull request too.
    """
    import httpx2

    pull_request = _pull_request()
    repository, token = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_TOKEN")
    if not repository or not token:
        raise ValueError("GITHUB_REPOSITORY and GITHUB_TOKEN must be set (pull-requests: write)")
    marker = f"<!-- forgetting-gate: {re.sub(r'[^A-Za-z0-9_.-]', '-', name)} -->"
    body = {"body": f"{marker}\n{markdown}".encode("utf-8", "replace").decode()}
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    with httpx2.Client(
        base_url=f"{api}/repos/{repository}/issues", headers=headers, timeout=20
    ) as http:
        own = _own(http, pull_request, marker)
        if own is None:
            answer = http.post(f"/{pull_request}/comments", json=body)
        else:
            answer = http.patch(f"/comments/{own}", json=body)
        answer.raise_for_status()


def _own(http: "httpx2.Client", pull_request: int, marker: str) -> int | None:
    """Id of the comment that begins with the marker, on whatever page it is."""
    for page in range(1, MAX_PAGES + 1):
        query = {"per_page": PAGE, "page": page}
        answer = http.get(f"/{pull_request}/comments", params=query)
        answer.raise_for_status()
        comments = answer.json()
        if not isinstance(comments, list):
            raise ValueError("GitHub did not answer with a list of comments")
        for one in comments:
            if isinstance(one, dict) and str(one.get("body", "")).startswith(marker):
                return int(one.get("id", 0))
        if "next" not in answer.links:
            return None
    raise ValueError(f"the comment is not among the first {PAGE * MAX_PAGES:,}")


def _pull_request() -> int:
    path = os.environ.get("GITHUB_EVENT_PATH")
    event = json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    if isinstance(event, dict):
        issue = event.get("issue")
        of_comment = issue if isinstance(issue, dict) and issue.get("pull_request") else None
        found = event.get("pull_request") or of_comment
        if isinstance(found, dict) and isinstance(found.get("number"), int):
            return int(found["number"])
    raise ValueError("this run is not one of a pull request")


def _command(level: str, title: str, message: str, **place: str) -> str:
    """Escaped as the runner unescapes it, so that no check's name can begin another command."""
    facts = {**place, "title": title}
    told = ",".join(
        f"{name}={_escaped(fact).replace(':', '%3A').replace(',', '%2C')}"
        for name, fact in facts.items()
    )
    return f"::{level} {told}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)
