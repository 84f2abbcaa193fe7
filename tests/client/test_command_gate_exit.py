"""Every exit code of `forgetting gate`, by the installed command against a real service."""

import json
import os
import signal
import subprocess

import pytest

from service.laws.verdict import Verdict
from tests.client.gated import FORGETTING, POLICY, ended, ending, environment, line, run, worker

ERROR = {"code": "system_fault", "detail": "the GPU is out of memory", "class": "system"}
ERROR |= {"param": None, "details": {}}


@pytest.mark.parametrize(
    ("verdicts", "code", "said"),
    [
        (["pass"], 0, "VERDICT: PASS (exit 0)"),
        (["pass", "warn"], 0, "VERDICT: WARN (exit 0)"),
        (["warn", "fail"], 1, "VERDICT: FAIL (exit 1)"),
        (["inconclusive"], 3, "VERDICT: INCONCLUSIVE (exit 3)"),
        (["not_measurable"], 4, "VERDICT: NOT MEASURABLE (exit 4)"),
        (["incomparable"], 5, "VERDICT: INCOMPARABLE (exit 5)"),
    ],
)
def test_a_verdict_is_the_exit_code_and_the_last_line(
    service, address, tmp_path, verdicts, code, said
) -> None:
    with worker(service.store, ending(*verdicts)):
        ran = run(line(), address, tmp_path)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (code, said), ran.stderr
    assert "check-0" in ran.stdout


@pytest.mark.parametrize("lenient", ["warn", "pass"])
def test_an_inconclusive_gate_passes_where_the_policy_says_so(
    service, address, tmp_path, lenient
) -> None:
    policy = f"{POLICY}on_inconclusive: {lenient}\n"
    with worker(service.store, ending("inconclusive", on_inconclusive=lenient)):
        ran = run(line(), address, tmp_path, policy=policy)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "VERDICT: INCONCLUSIVE (exit 0)"


def test_a_job_that_fails_has_measured_nothing(service, address, tmp_path) -> None:
    def fail(store) -> None:
        store.fail(store.claim("worker"), ERROR)

    with worker(service.store, fail):
        ran = run(line(), address, tmp_path)
    assert ran.returncode == 4
    assert "the GPU is out of memory" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "VERDICT: NOT MEASURABLE (exit 4)"


def test_a_gate_that_is_cancelled_has_measured_nothing(service, address, tmp_path) -> None:
    def cancel(store) -> None:
        [job], _ = store.list_jobs(limit=1)
        service.client.cancel(job.id)

    with worker(service.store, cancel):
        ran = run(line(), address, tmp_path)
    assert ran.returncode == 4
    assert ran.stdout.splitlines()[-1] == "VERDICT: NOT MEASURABLE (exit 4)"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--adapter", "tiny_base"], "give --adapter and --base"),
        (["gate_1", "--adapter", "tiny_base"], "give a gate, or --adapter and --base"),
        (line("--local", "--server", "http://127.0.0.1:1")[2:], "give --local or --server"),
        (line("-c", "absent.yml")[2:], "absent.yml:1:1: cannot be read: No such file"),
        (line("--junit", "/proc/none/x.xml")[2:], "/proc/none/x.xml cannot be written"),
        (line(adapter="./absent")[2:], "./absent is no folder here"),
        (line(adapter="absent")[2:], "absent"),
        (line("--set", "metadata.a.b=1")[2:], "metadata.a"),
        (line("--timeout", "inf")[2:], "must be a number of seconds"),
        (line("--no-such-option")[2:], "No such option"),
        (["gate_1"], "gate_1"),
    ],
)
def test_what_the_caller_can_mend_is_exit_2_and_nothing_is_queued(
    service, address, tmp_path, options, said
) -> None:
    ran = run([FORGETTING, "gate", *options], address, tmp_path)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(service.client.jobs())


def test_a_bad_policy_is_told_by_line_and_column_and_nobody_is_asked(tmp_path) -> None:
    policy = POLICY.replace("0.08", "-1").replace("id: mean", "id: a b")
    ran = run(line(), "http://127.0.0.1:1", tmp_path, policy=policy)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        'forgetting.yml:3:6: checks.0.id: "a b" has characters that are not allowed',
        "      - {id: a b, metric: kl, fail_above: -1}",
        "         ^",
        "forgetting.yml:3:27: checks.0.fail_above: must be at least 1e-09, is -1",
        "      - {id: a b, metric: kl, fail_above: -1}",
        "                              ^",
    ]


def test_what_the_service_refuses_of_a_policy_has_its_place_too(service, address, tmp_path) -> None:
    policy = f"{POLICY}  - {{id: law, metric: law_residual, fail_above: 0.1}}\n"
    ran = run(line(), address, tmp_path, policy=policy)
    assert ran.returncode == 2
    assert ran.stderr.startswith("forgetting.yml:4:15: checks.1.metric: law_residual cannot be")


def test_a_baseline_that_is_missing_is_exit_5(service, address, tmp_path) -> None:
    policy = POLICY + (
        "  - {id: prod, metric: kl, baseline: prod, max_increase: 0.01}\n"
        "baselines: {prod: {path: absent}}\n"
    )
    ran = run(line(), address, tmp_path, policy=policy)
    assert ran.returncode == 5, ran.stderr
    assert "policy.baselines.prod" in ran.stderr


def test_a_gate_of_before_is_shown_with_its_own_exit_code(service, address, tmp_path) -> None:
    gate = ended(service, "fail")
    for named in (gate, gate.replace("gate_", "job_")):
        ran = run([FORGETTING, "gate", named], address, tmp_path)
        assert (ran.returncode, ran.stdout.splitlines()[-1]) == (1, "VERDICT: FAIL (exit 1)")
    as_json = run([FORGETTING, "gate", gate, "--json"], address, tmp_path)
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout) == service.client.gate(gate)
    job = service.client.create_gate(service.client.job(gate.replace("gate_", "job_"))["spec"])
    waiting = run([FORGETTING, "gate", job["id"]], address, tmp_path)
    assert (waiting.returncode, waiting.stdout) == (4, "")
    assert "is queued; it has no verdict yet" in waiting.stderr


def test_ctrl_c_says_that_the_gate_goes_on(service, address, tmp_path) -> None:
    (tmp_path / "forgetting.yml").write_text(POLICY)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    gating = subprocess.Popen(line(), cwd=tmp_path, env=environment(address), **pipes)
    assert gating.stderr is not None
    while "queued" not in gating.stderr.readline():
        assert gating.poll() is None
    os.kill(gating.pid, signal.SIGINT)
    stdout, stderr = gating.communicate(timeout=30)
    [job] = service.client.jobs()
    gate = job["id"].replace("job_", "gate_")
    assert (gating.returncode, stdout) == (130, "")
    said = f"Stopped. {gate} goes on. Look at it again: forgetting gate {gate}"
    assert stderr.splitlines()[-1] == said
    assert service.client.gate(gate)["status"] == "queued"


def test_the_same_question_under_the_same_key_is_one_gate(service, address, tmp_path) -> None:
    keyed = line("--idempotency-key", "run-17", "--json")
    with worker(service.store, ending("pass")):
        first = run(keyed, address, tmp_path)
    again = run(keyed, address, tmp_path)
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert json.loads(first.stdout)["verdict"] == Verdict.PASS


def test_a_service_that_is_slow_to_decide_is_not_waited_for(service, address, tmp_path) -> None:
    ran = run(line("--timeout", "2"), address, tmp_path)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "has no verdict after 2 s; it goes on." in ran.stderr
    assert "this says nothing of the adapter" in ran.stderr
