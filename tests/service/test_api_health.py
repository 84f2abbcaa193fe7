"""Probes, metrics, request ids, and what the service says when it fails."""

import io
import json
import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.broker import Doorbell
from service.logs import Lines
from service.readiness import readiness
from service.settings import Settings
from service.store import Store
from tests.results import run_next

Json = dict[str, Any]


def test_alive(sqlite_api: TestClient) -> None:
    body = sqlite_api.get("/healthz").json()
    assert body["status"] == "ok"
    assert body["version"]


def test_ready_needs_database_broker_and_worker(api: TestClient, store: Store, bell: Any) -> None:
    without = api.get("/readyz")
    assert without.status_code == 503
    assert without.json()["code"] == "not_ready"
    assert "worker: none lives" in without.json()["detail"]
    checks = without.json()["details"]["checks"]
    assert [checks[name]["ok"] for name in ("database", "broker", "worker")] == [True, True, False]
    store.beat_worker("w1", state="idle")
    store.beat_worker("w2", state="busy")
    ready = api.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert ready.json()["checks"]["worker"]["detail"] == "2 alive, 1 busy"
    bell.answers = False
    deaf = api.get("/readyz")
    assert (deaf.status_code, deaf.json()["detail"]) == (503, "broker: does not answer")


def test_a_lost_database_is_named(sqlite_store: Store, roots: Any, bell: Any) -> None:
    sqlite_store.dispose()
    path = roots / "home" / "forgetting.sqlite3"
    path.unlink()
    path.mkdir()
    found = readiness(sqlite_store, bell)
    assert found.status == "not_ready"
    assert (found.checks["database"].ok, found.checks["broker"].ok) == (False, True)


def test_a_lost_database_is_a_503_problem(
    sqlite_store: Store, api_settings: Settings, bell: Any
) -> None:
    # Not entered, so that no sweeper runs: its thread would make the file anew between two steps.
    client = TestClient(create_app(sqlite_store, api_settings, bell))
    for path in api_settings.home.glob("forgetting.sqlite3*"):
        path.unlink()
    (api_settings.home / "forgetting.sqlite3").mkdir()
    sqlite_store.dispose()  # last: a pooled connection would go on reading the unlinked file
    answer = client.get("/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "system_fault")
    assert float(answer.headers["Retry-After"]) > 0


def test_metrics_count_jobs_workers_and_requests(
    api: TestClient, store: Store, finetune: Json
) -> None:
    store.beat_worker("w1", state="idle")
    for _ in range(2):
        api.post("/jobs", json=finetune)
    run_next(store)
    api.get("/jobs/job_nowhere")
    api.get("/some/strange/path")
    text = api.get("/metrics").text
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["fgt_jobs", ("status", "queued"), ("type", "finetune")] == 1
    assert found["fgt_jobs", ("status", "succeeded"), ("type", "finetune")] == 1
    assert found[("fgt_workers_alive",)] == 1
    assert 0 < found[("fgt_queue_wait_seconds",)] < 60
    name = "fgt_http_requests_total"
    assert found[name, ("method", "POST"), ("path", "/jobs"), ("status", "202")] == 2
    assert found[name, ("method", "GET"), ("path", "/jobs/{job_id}"), ("status", "404")] == 1
    assert found[name, ("method", "GET"), ("path", "unmatched"), ("status", "404")] == 1


def test_apps_count_apart(api: TestClient, store: Store, api_settings: Settings, bell: Any) -> None:
    api.get("/healthz")
    with TestClient(create_app(store, api_settings, bell)) as other:
        assert 'path="/healthz"' not in other.get("/metrics").text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("my-id.7_A", True),
        ("x" * 129, False),
        ("two words", False),
        ("a\u00e9", False),
        ("", False),
    ],
)
def test_request_ids_come_back(sqlite_api: TestClient, given: str, kept: bool) -> None:
    answer = sqlite_api.get("/nowhere", headers=[(b"x-request-id", given.encode("latin-1"))])
    back = answer.headers["x-request-id"]
    assert back == answer.json()["request_id"]
    assert back == given if kept else back.startswith("req_")


def test_nul_in_an_address(api: TestClient) -> None:
    for address in (
        "/jobs/%00",
        "/jobs?base_model=%00",
        "/jobs?metadata[%00]=1",
        "/laws?group=%00",
    ):
        answer = api.get(address)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_an_unforeseen_fault_is_a_problem_and_is_logged(
    sqlite_store: Store, api_settings: Settings, bell: Any
) -> None:
    app = create_app(sqlite_store, api_settings, bell)

    @app.get("/breaks")
    def breaks() -> None:
        raise ZeroDivisionError("secret detail")

    written = io.StringIO()
    ours = logging.StreamHandler(written)
    ours.setFormatter(Lines(frozenset(), as_json=True))
    logging.getLogger().addHandler(ours)
    try:
        with TestClient(app, raise_server_exceptions=False) as client:
            answer = client.get("/breaks", headers={"x-request-id": "find-me"})
    finally:
        logging.getLogger().removeHandler(ours)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "find-me"
    assert answer.json()["code"] == "internal_error"
    assert "secret detail" not in answer.text
    [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert line["request_id"] == "find-me"
    assert "ZeroDivisionError: secret detail" in line["exception"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/jobs", 405, "method_not_allowed"),
        ("GET", "/problems/nothing", 404, "not_found"),
    ],
)
def test_what_http_refuses_is_a_problem_too(
    sqlite_api: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = sqlite_api.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_refused_method_names_the_allowed_ones(sqlite_api: TestClient) -> None:
    for path in ("/jobs", "/v1/jobs"):
        assert sqlite_api.put(path).headers["Allow"] == "GET, POST"
    assert sqlite_api.put("/jobs/job_1").headers["Allow"] == "DELETE, GET"


def test_a_submission_does_not_wait_for_the_broker(
    sqlite_store: Store, api_settings: Settings, finetune: Json
) -> None:
    """Nothing listens on port 1: the ring is lost, the job is not."""
    bell = Doorbell("redis://127.0.0.1:1/0")
    with TestClient(create_app(sqlite_store, api_settings, bell)) as client:
        answer = client.post("/jobs", json=finetune)
        assert answer.status_code == 202
        assert answer.elapsed.total_seconds() < 2
        assert client.get("/readyz").json()["details"]["checks"]["broker"]["ok"] is False
