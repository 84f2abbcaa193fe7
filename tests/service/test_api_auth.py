"""One key, and nothing without it but the two probes."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.app import create_app
from service.auth import check_exposure
from service.errors import InvalidSpec
from service.settings import Settings
from service.store import Store

KEY = "a-key-of-enough-letters"


@pytest.fixture
def locked(sqlite_store: Store, api_settings: Settings, bell: object) -> Iterator[TestClient]:
    settings = api_settings.model_copy(update={"api_key": SecretStr(KEY)})
    with TestClient(create_app(sqlite_store, settings, bell)) as client:
        yield client


def test_every_documented_route_is_closed(locked: TestClient) -> None:
    app = locked.app
    assert isinstance(app, FastAPI)
    tried = 0
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            for place in (path, path.removeprefix("/v1")):
                answer = locked.request(method, place)
                tried += 1
                if place.endswith(("/healthz", "/readyz")):
                    assert answer.status_code != 401
                else:
                    assert answer.status_code == 401, (method, place)
    assert tried > 40


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/metrics", "/nowhere", "/"])
def test_default_deny(locked: TestClient, path: str) -> None:
    answer = locked.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthorized"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "header", ["", KEY, f"Basic {KEY}", "Bearer", "Bearer ", f"Bearer {KEY}x", "Bearer \xe9"]
)
def test_wrong_keys(locked: TestClient, header: str) -> None:
    answer = locked.get("/jobs", headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    assert KEY not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_key_opens(locked: TestClient, scheme: str) -> None:
    assert locked.get("/jobs", headers={"Authorization": f"{scheme} {KEY}"}).status_code == 200


def test_without_a_key_set_none_is_asked(sqlite_api: TestClient) -> None:
    assert sqlite_api.get("/jobs").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_elsewhere_a_key_is_needed(
    host: str, sqlite_store: Store, api_settings: Settings, bell: object
) -> None:
    with pytest.raises(InvalidSpec, match="FORGETTING_API_KEY"):
        create_app(sqlite_store, api_settings.model_copy(update={"host": host}), bell)
    check_exposure(Settings(host=host, api_key=SecretStr(KEY)))


@pytest.mark.parametrize("key", ["", "short"])
def test_a_key_that_can_be_guessed_is_none(key: str) -> None:
    with pytest.raises(InvalidSpec, match="16 characters"):
        check_exposure(Settings(host="0.0.0.0", api_key=SecretStr(key)))
