"""A gate among the jobs of the command line: submitted, listed, shown, watched."""

import json
from pathlib import Path

import pytest

from tests.client.test_client_gates import spec_of
from tests.gate_results import check, end_gate
from tests.specs import ERROR


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("warn", 0), ("fail", 1), ("inconclusive", 3)]
)
def test_a_spec_file_is_submitted_and_watched_to_its_verdict(
    service, tmp_path: Path, verdict: str, code: int
) -> None:
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(spec_of(service)))
    submitted = service.forgetting("jobs", "submit", str(file))
    assert submitted.exit_code == 0
    job_id = submitted.stdout.strip()
    assert service.client.job(job_id)["type"] == "gate"
    end_gate(service.store, check(verdict))
    watched = service.forgetting("jobs", "watch", job_id)
    assert watched.exit_code == code
    assert f"VERDICT: {verdict.upper()} (exit {code})" in watched.stdout
    assert service.forgetting("jobs", "watch", job_id, "--json").exit_code == code


def test_a_gate_is_listed_and_shown_with_its_verdict(service) -> None:
    job_id = service.client.create_gate(spec_of(service))["job"]
    assert "VERDICT" not in service.forgetting("jobs", "show", job_id).stdout
    assert service.forgetting("jobs", "result", job_id).exit_code == 2
    end_gate(service.store, check("fail"))
    listed = service.forgetting("jobs", "list", "--type", "gate").stdout.splitlines()
    assert "succeeded: fail" in listed[1]
    assert service.spec["base_model"] in listed[1]
    for command in ("show", "result"):
        shown = service.forgetting("jobs", command, job_id)
        assert shown.exit_code == 0
        assert shown.stdout.splitlines()[-1].startswith("VERDICT: FAIL (exit 1)")
        assert "0.1310" in shown.stdout
    whole = json.loads(service.forgetting("jobs", "result", job_id, "--json").stdout)
    assert whole["verdict"] == "fail"


def test_a_gate_that_failed_is_not_measurable_and_exits_4(service) -> None:
    job_id = service.client.create_gate(spec_of(service))["job"]
    service.store.fail(service.start(), ERROR)
    watched = service.forgetting("jobs", "watch", job_id)
    assert watched.exit_code == 4
    assert "line 3 is no JSON" in watched.stdout
    shown = service.forgetting("jobs", "show", job_id)
    assert "VERDICT: NOT MEASURABLE (exit 4)" in shown.stdout
    assert "line 3 is no JSON" in shown.stdout
