"""Reports of a gate: files, and what GitHub Actions shows, its API played by a recording server."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.client.answering import Answering, Asked, Reply, answering
from tests.client.gated import POLICY, ended, line
from tests.gate_results import check, end_gate

MARKER = "<!-- forgetting-gate: forgetting.yml -->"


@pytest.fixture
def actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A step of GitHub Actions, in a run of pull request 7."""
    (tmp_path / "event.json").write_text(json.dumps({"pull_request": {"number": 7}}))
    said = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_REPOSITORY": "acme/lora",
        "GITHUB_TOKEN": "secret",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Hub:
    """Issue comments of one pull request, two on a page."""

    def __init__(self, *bodies: str) -> None:
        self.comments: list[Any] = [{"id": i, "body": one} for i, one in enumerate(bodies)]

    def __call__(self, asked: Asked) -> Reply:
        path, _, query = asked.path.partition("?")
        if asked.method == "GET":
            page = int(query.rpartition("page=")[2])
            found = self.comments[2 * page - 2 : 2 * page]
            more = (
                {"Link": '<http://x/?page=2>; rel="next"'} if len(self.comments) > 2 * page else {}
            )
            return Reply(200, found, more)
        if asked.method == "POST":
            self.comments.append({"id": len(self.comments), **asked.body})
            return Reply(201, {"html_url": "http://x"})
        self.comments[int(path.rpartition("/")[2])] |= asked.body
        return Reply(200, {"html_url": "http://x"})


def test_files_hold_what_the_service_renders(service, tmp_path) -> None:
    gate = ended(service, "fail")
    junit, markdown = tmp_path / "new" / "gate.xml", tmp_path / "gate.md"
    ran = service.forgetting("gate", gate, "--junit", str(junit), "--markdown", str(markdown))
    assert ran.exit_code == 1
    assert markdown.read_text() == service.client.gate_report(gate)
    assert ElementTree.parse(junit).getroot().get("failures") == "1"


def test_a_report_of_an_earlier_run_is_not_left_for_this_one(service, tmp_path) -> None:
    junit = tmp_path / "gate.xml"
    junit.write_text("<testsuites/>")
    ran = service.forgetting("gate", "gate_1", "--junit", str(junit))
    assert (ran.exit_code, junit.exists()) == (2, False)


def test_a_pass_whose_report_cannot_be_written_is_none(service) -> None:
    for verdict, code in (("pass", 4), ("fail", 1)):
        ran = service.forgetting("gate", ended(service, verdict), "--junit", "/dev/full")
        assert ran.exit_code == code
        assert ran.stdout.splitlines()[-1] == f"VERDICT: {verdict.upper()} (exit {code})"
        assert "No space left on device" in ran.stderr


def test_a_step_of_actions_gets_summary_outputs_and_annotations(service, actions) -> None:
    gate = ended(service, "fail", "pass", "inconclusive")
    ran = service.forgetting("gate", gate)
    assert ran.exit_code == 1
    assert (actions / "summary.md").read_text() == service.client.gate_report(gate) + "\n"
    assert (actions / "output").read_text() == f"verdict=fail\nexit-code=1\ngate={gate}\n"
    commands = [one for one in ran.stderr.splitlines() if one.startswith("::")]
    assert [one.partition(" title=forgetting gate")[0] for one in commands] == [
        "::error",
        "::warning",
        "::error",
    ]
    assert "kl is 0.1310, limit ≤ 0.08" in commands[0]
    assert "VERDICT: FAIL (exit 1)" in commands[2]
    assert "::" not in ran.stdout
    quiet = service.forgetting("gate", gate, "--no-summary", "--no-annotate")
    assert "::" not in quiet.stderr
    assert (actions / "summary.md").read_text().count("## ") == 1


def test_a_summary_that_is_full_is_a_warning(service, actions) -> None:
    (actions / "summary.md").write_text("x" * 999_000)
    ran = service.forgetting("gate", ended(service, "pass"))
    assert ran.exit_code == 0
    assert "Warning: the step's summary was not written: 999,000 bytes" in ran.stderr


def test_no_name_begins_a_command_of_its_own(service, actions) -> None:
    reason = "x\n::error::made up\r%0A::set-output name=verdict::pass"
    gate = ended(service, "pass")
    spec = service.client.job(gate.replace("gate_", "job_"))["spec"]
    hostile = service.client.create_gate(spec)["id"]
    end_gate(service.store, check("fail", reason=reason))
    ran = service.forgetting("gate", hostile)
    assert ran.exit_code == 1
    told = [one for one in ran.stderr.splitlines() if one.startswith("::")]
    assert len(told) == 2
    assert "x%0A::error::made up%0D%250A::set-output" in told[0]


def test_a_bad_policy_is_annotated_at_its_line(service, actions) -> None:
    (actions / "forgetting.yml").write_text(POLICY.replace("0.08", "-1"))
    ran = service.forgetting(*line()[1:])
    assert ran.exit_code == 2
    told = "::error file=forgetting.yml,line=3,col=28,title=forgetting gate::checks.0.fail_above:"
    assert told in ran.stderr
    assert (actions / "output").read_text() == "verdict=\nexit-code=2\ngate=\n"


def commented(service: Any, gate: str, hub: Hub, monkeypatch: Any) -> tuple[Any, Answering]:
    with answering(hub) as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        return service.forgetting("gate", gate, "--comment"), api


def test_one_comment_is_made_and_then_renewed(service, actions, monkeypatch) -> None:
    hub = Hub("hello", f"> {MARKER}\nquoted", "and", "so on", "<!-- forgetting-gate: b.yml -->")
    red, green = ended(service, "fail"), ended(service, "pass")
    ran, api = commented(service, red, hub, monkeypatch)
    assert ran.exit_code == 1
    assert len(api.asked) == 4
    assert api.lines()[-1] == "POST /repos/acme/lora/issues/7/comments"
    assert api.asked[-1].headers["Authorization"] == "Bearer secret"
    assert hub.comments[5]["body"].startswith(f"{MARKER}\n## ❌ Gate: fail")
    ran, api = commented(service, green, hub, monkeypatch)
    assert (ran.exit_code, len(hub.comments)) == (0, 6)
    assert api.lines()[-1] == "PATCH /repos/acme/lora/issues/comments/5"
    assert hub.comments[5]["body"].startswith(f"{MARKER}\n## ✅ Gate: pass")
    assert "secret" not in ran.output


@pytest.mark.parametrize(
    "reply",
    [Reply(403, {"message": "no"}), Reply(500, "down"), Reply(200, "<html>"), Reply(200, {"a": 1})],
    ids=lambda one: f"{one.status}-{one.body}",
)
@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1)])
def test_a_comment_that_fails_is_a_warning(
    service, actions, monkeypatch, reply, verdict, code
) -> None:
    ran, _ = commented(service, ended(service, verdict), lambda _: reply, monkeypatch)
    assert ran.exit_code == code
    assert "Warning: the pull request's comment was not written" in ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("VERDICT")


@pytest.mark.parametrize("event", ["", "[]", "{}", '{"issue": {"number": 3}}', "not json"])
def test_outside_of_a_pull_request_there_is_no_comment(service, actions, event) -> None:
    (actions / "event.json").write_text(event)
    ran = service.forgetting("gate", ended(service, "pass"), "--comment")
    assert ran.exit_code == 0
    assert "Warning: the pull request's comment was not written" in ran.stderr
