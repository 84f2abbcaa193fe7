"""Faults are no verdicts: `forgetting gate` against servers that are down, wrong or gone."""

import json
import socket
import threading
from typing import Any

import pytest
from forgetting_client.command.app import app
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from service.app import create_app
from service.broker import Doorbell
from tests.client.answering import Asked, Reply, answering
from tests.client.conftest import SilentBell, listening
from tests.client.gated import POLICY, ended, line, run, worker

PROBLEM = {"Content-Type": "application/problem+json"}
HTML = "<html><body>Please log in</body></html>"


def nothing_said_of_the_adapter(ran: Any) -> None:
    assert (ran.returncode, ran.stdout) == (4, ""), ran.stderr
    assert "Could not measure (exit 4): this says nothing of the adapter." in ran.stderr
    assert "Traceback" not in ran.stderr


def test_nothing_listens(tmp_path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        ran = run(line(), f"http://127.0.0.1:{one.getsockname()[1]}", tmp_path)
    nothing_said_of_the_adapter(ran)
    assert "cannot be reached" in ran.stderr


def test_a_socket_that_hangs_is_left_after_the_timeout(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
        ran = run(line("--timeout", "1"), url, tmp_path)
    nothing_said_of_the_adapter(ran)
    assert "The service has not accepted the gate within 1 s." in ran.stderr


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, {"code": "internal", "detail": "a fault"}, PROBLEM),
        Reply(500, HTML),
        Reply(200, HTML),
        Reply(404, HTML),
        Reply(403, HTML),
        Reply(302, HTML, {"Location": "http://127.0.0.1:1/login"}),
        Reply(202, []),
        Reply(202, {"detail": "ok"}),
        Reply(429, {"code": "too_many_requests", "detail": "later"}, {"Retry-After": "3600"}),
    ],
    ids=lambda one: f"{one.status}-{type(one.body).__name__}",
)
def test_a_server_that_is_broken_or_another_one(tmp_path, reply) -> None:
    with answering(lambda _: reply) as server:
        result = gate_against(server.url, tmp_path)
    assert (result.exit_code, result.stdout) == (4, ""), result.stderr
    assert "this says nothing of the adapter" in result.stderr


def test_a_wrong_key(service, tmp_path) -> None:
    settings = service.settings.model_copy(update={"api_key": SecretStr("k" * 32)})
    locked = create_app(service.store, settings, SilentBell())
    with listening(locked) as url:
        ran = run(line(), url, tmp_path, FORGETTING_API_KEY="wrong")
    nothing_said_of_the_adapter(ran)
    assert "FORGETTING_API_KEY" in ran.stderr


def test_redis_gone_and_no_worker_hears_of_the_gate(service, tmp_path) -> None:
    bell = Doorbell("redis://127.0.0.1:1/0")
    bell.start()
    try:
        with listening(create_app(service.store, service.settings, bell)) as url:
            ran = run(line("--timeout", "3"), url, tmp_path)
    finally:
        bell.stop()
    nothing_said_of_the_adapter(ran)
    assert "has no verdict after 3 s; it goes on." in ran.stderr


def test_a_service_that_is_killed_while_the_gate_runs(service, tmp_path) -> None:
    killed = threading.Event()
    with listening(service.app) as url, worker(service.store, lambda _: killed.set()):
        ends = threading.Thread(
            target=lambda: results.append(run(line("--timeout", "4"), url, tmp_path))
        )
        results: list[Any] = []
        ends.start()
        assert killed.wait(60)
    ends.join()
    nothing_said_of_the_adapter(results[0])


def test_a_service_that_has_forgotten_the_gate(service, address, tmp_path) -> None:
    def forget(store) -> None:
        [job], _ = store.list_jobs(limit=1)
        service.client.cancel(job.id)
        service.client.delete(job.id)

    with worker(service.store, forget):
        ran = run(line(), address, tmp_path)
    assert ran.returncode == 4, ran.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "excellent"},
        {"verdict": None},
        {"exit_code": 1},
        {"exit_code": None},
        {"result": None},
        {"verdict": "fail", "exit_code": 1},
        {"verdict": "inconclusive", "exit_code": 0},
        {"status": 3},
        {"policy": None, "reason": None, "base_model": None, "result": {"verdict": "pass"}},
    ],
    ids=str,
)
def test_a_gate_that_contradicts_itself_is_not_believed(service, tmp_path, change) -> None:
    gate = service.client.gate(ended(service, "pass"))
    with answering(lambda _: Reply(202, {**gate, **change})) as server:
        result = gate_against(server.url, tmp_path)
    assert (result.exit_code, result.stdout) == (4, ""), result.stderr
    with answering(lambda _: Reply(202, gate)) as server:
        assert gate_against(server.url, tmp_path).exit_code == 0


def test_a_short_absence_of_the_service_is_waited_for(service, tmp_path) -> None:
    gate = service.client.gate(ended(service, "fail"))
    running = {**gate, "status": "running", "verdict": None, "result": None}
    away = [Reply(503, HTML)] * 7
    answers = [Reply(202, running), *away, Reply(200, running), Reply(200, gate)]

    def next_one(asked: Asked) -> Reply:
        return answers.pop(0) if "gates" in asked.path else Reply(200, {"checks": {}})

    with answering(next_one) as server:
        result = gate_against(server.url, tmp_path)
    assert (result.exit_code, answers) == (1, [])


def test_faults_as_json(tmp_path) -> None:
    with answering(lambda _: Reply(500, HTML)) as server:
        result = gate_against(server.url, tmp_path, "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert json.loads(result.stderr.splitlines()[-1])["error"]["exit_code"] == 4


def gate_against(url: str, folder: Any, *options: str) -> Result:
    """In this process, where only the answers matter."""
    policy = folder / "forgetting.yml"
    policy.write_text(POLICY)
    words = ["--server", url, *line("-c", str(policy), *options)[1:]]
    return CliRunner().invoke(app, words)
