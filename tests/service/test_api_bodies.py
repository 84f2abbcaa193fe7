"""Bodies that are no spec: not JSON, not finite, not small, not JSON by their own word."""

import json

import anyio
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from tests.refusals import Json, merged, refused

JSON = {"Content-Type": "application/json"}
pytestmark = pytest.mark.usefixtures("untouched")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["learning_rate", "max_steps", "held_out"])
def test_numbers_that_are_none(
    sqlite_api: TestClient, finetune: Json, number: str, field: str
) -> None:
    body = json.dumps(merged(finetune, {"training": {field: "@"}})).replace('"@"', number)
    problem = refused(sqlite_api.post("/jobs", content=body, headers=JSON))
    assert (problem["code"], problem["param"]) == ("validation_error", f"training.{field}")
    assert not {"NaN", "Infinity", "1e999"} & set(problem["detail"].split())


def test_nothing_of_the_input_is_echoed(sqlite_api: TestClient, finetune: Json) -> None:
    spec = merged(finetune, {"training": {"optim": "sk-secret"}, "metadata": {"k": ["sk-secret"]}})
    spec["type"] = "sk-secret"
    assert "sk-secret" not in sqlite_api.post("/jobs", json=spec).text
    spec["type"] = "finetune"
    answer = sqlite_api.post("/jobs", json=spec)
    problem = refused(answer)
    assert "sk-secret" not in answer.text
    assert [error["param"] for error in problem["errors"]] == ["training.optim", "metadata.k"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"", 422, "validation_error"),
        (b"[]", 422, "validation_error"),
        (b"null", 422, "validation_error"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[" * 100_000, 400, "malformed_json"),
        (b'{"a":' * 100_000, 400, "malformed_json"),
        (b'{"type": ' + b"1" * 5000 + b"}", 400, "malformed_json"),
        (b'{"type": "finetune", "\\ud800": 1}', 422, "validation_error"),
        (b" " * 1_000_001, 413, "payload_too_large"),
    ],
)
def test_bodies_that_are_no_spec(
    sqlite_api: TestClient, body: bytes, status: int, code: str
) -> None:
    problem = refused(sqlite_api.post("/jobs", content=body, headers=JSON), status=status)
    assert problem["code"] == code


def test_nesting_that_json_can_read_is_a_validation_error(
    sqlite_api: TestClient, finetune: Json
) -> None:
    deep = '{"a":' * 500 + "1" + "}" * 500
    body = json.dumps(finetune | {"metadata": "@"}).replace('"@"', deep)
    problem = refused(sqlite_api.post("/jobs", content=body, headers=JSON))
    assert problem["param"] == "metadata.a"


def test_the_body_limit_counts_what_arrives(sqlite_api: TestClient) -> None:
    """No Content-Length is sent, and what comes after the limit is not waited for."""
    n_read, status = 0, []

    async def receive() -> Message:
        nonlocal n_read
        n_read += 1
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

    async def send(message: Message) -> None:
        status.append(message.get("status"))

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/jobs", "query_string": b""}
    anyio.run(sqlite_api.app, scope | {"headers": headers}, receive, send)
    assert (status[0], n_read) == (413, 16)

    chunks = (b" " * 65_536 for _ in range(64))
    problem = refused(sqlite_api.post("/jobs", content=chunks, headers=JSON), status=413)
    assert problem["details"] == {"max_body_bytes": 1_000_000}


def test_a_body_at_the_limit_is_read(sqlite_api: TestClient, finetune: Json) -> None:
    body = json.dumps(finetune | {"base_model": "absent"}).encode().ljust(1_000_000)
    problem = refused(sqlite_api.post("/jobs", content=body, headers=JSON))
    assert problem["code"] == "model_unavailable"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(sqlite_api: TestClient, finetune: Json, kind: str) -> None:
    headers = {"Content-Type": kind}
    answer = sqlite_api.post("/jobs", content=json.dumps(finetune), headers=headers)
    assert refused(answer, status=415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", "/jobs", 405), ("TRACE", "/v1/adapters", 405), ("POST", "/nowhere", 404)],
)
def test_a_body_is_not_looked_at_where_nothing_takes_the_request(
    sqlite_api: TestClient, method: str, path: str, status: int
) -> None:
    answer = sqlite_api.request(method, path, content="text", headers={"Content-Type": "text/x"})
    refused(answer, status=status, at=path)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_idempotency_keys_have_a_length(sqlite_api: TestClient, finetune: Json, key: str) -> None:
    answer = sqlite_api.post("/jobs", json=finetune, headers={"Idempotency-Key": key})
    assert refused(answer)["param"].lower() == "idempotency-key"
