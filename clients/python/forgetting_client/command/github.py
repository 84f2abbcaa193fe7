"""What GitHub Actions shows of a gate: the step's summary, annotations, outputs, one comment.

Everything here is beside the verdict: where it fails, a warning says so and the exit code stays.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetting_client.command.gate_page import limit, metric, verdict_line
from forgetting_client.command.output import say
from forgetting_client.command.words import number

SUMMARY_BYTES = 1_000_000
"""GitHub drops a step's summary above 1,024 KiB."""
COMMENT_CHARACTERS = 60_000
"""GitHub refuses a comment above 65,536."""
PAGE = 100
MAX_PAGES = 50
LEVELS = {"pass": None, "warn": "warning", "inconclusive": "warning"}
"""Of an annotation, by the check's verdict; any other is an error."""


def in_actions() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def summarise(markdown: str) -> None:
    """Append to the step's summary. Raises OSError."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown.encode("utf-8", "replace").decode() + "\n")


def outputs(gate: Mapping[str, Any], code: int) -> None:
    """For later steps: verdict, exit-code, gate. Raises OSError."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        facts = {"verdict": gate["verdict"], "exit-code": code, "gate": gate["id"] or ""}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write("".join(f"{name}={_one_line(str(v))}\n" for name, v in facts.items()))


def annotations(gate: Mapping[str, Any]) -> list[str]:
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
    found.append(_command(level, "forgetting gate", verdict_line(gate)))
    return found


def comment(markdown: str, *, name: str) -> str | None:
    """Write the pull request's one comment of this gate, or renew it; its address.

    None outside a pull request. Raises OSError, ValueError and httpx2.HTTPError.
    """
    import httpx2

    number_ = _pull_request()
    repository, token = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_TOKEN")
    if number_ is None:
        return None
    if not repository or not token:
        raise ValueError("GITHUB_REPOSITORY and GITHUB_TOKEN must be set (pull-requests: write)")
    marker = f"<!-- forgetting-gate: {re.sub(r'[^A-Za-z0-9_.-]', '-', name)} -->"
    body = {"body": f"{marker}\n{markdown}"}
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    with httpx2.Client(base_url=f"{api}/repos/{repository}/issues", headers=headers) as http:
        own = _own(http, number_, marker)
        if own is None:
            answer = http.post(f"/{number_}/comments", json=body)
        else:
            answer = http.patch(f"/comments/{own}", json=body)
        answer.raise_for_status()
        address: str = answer.json().get("html_url", "")
        return address


def beside(what: str, error: Exception) -> None:
    """A fault of something that is no verdict."""
    say(f"Warning: {what}: {error}. The verdict stands.")


def _own(http: Any, pull_request: int, marker: str) -> int | None:
    """Id of the comment that begins with the marker, on whatever page it is."""
    for page in range(1, MAX_PAGES + 1):
        query = {"per_page": PAGE, "page": page}
        answer = http.get(f"/{pull_request}/comments", params=query)
        answer.raise_for_status()
        comments = answer.json()
        for one in comments:
            if str(one.get("body", "")).startswith(marker):
                return int(one["id"])
        if len(comments) < PAGE:
            return None
    return None


def _pull_request() -> int | None:
    path = os.environ.get("GITHUB_EVENT_PATH")
    if not path:
        return None
    event = json.loads(Path(path).read_text(encoding="utf-8"))
    found = (event.get("pull_request") or {}).get("number")
    if found is None and (event.get("issue") or {}).get("pull_request"):
        found = event["issue"]["number"]
    return None if found is None else int(found)


def _command(level: str, title: str, message: str) -> str:
    """Escaped as the runner unescapes it, so that no check's name can begin another command."""
    shown = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    shown = shown.replace(":", "%3A").replace(",", "%2C")
    said = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title={shown}::{said}"


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)
