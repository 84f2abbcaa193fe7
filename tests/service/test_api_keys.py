"""Keys over HTTP: made once, held to their scopes, dead when revoked or expired."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import update
from starlette.testclient import TestClient

from service.app import create_app
from service.columns import epoch_now
from service.keys import create_key
from service.scopes import SCHEME, Scope
from service.settings import Settings
from service.store import Store
from service.tables import keys

ROOT_KEY = "a-bootstrap-key-of-enough-letters"
PEPPER = "a-pepper-of-enough-letters"
IDS = {
    "job_id": "job_01JQ0000000000000000000000",
    "adapter_id": "adp_01JQ0000000000000000000000",
    "law_id": "law_01JQ0000000000000000000000",
    "gate_id": "gate_01JQ0000000000000000000000",
    "key_id": "key_01JQ0000000000000000000000",
    "picture_format": "svg",
    "name": "result.json",
    "code": "not_found",
}


@pytest.fixture
def keyed(api_settings: Settings) -> Settings:
    changes = {"api_key": SecretStr(ROOT_KEY), "key_pepper": SecretStr(PEPPER)}
    return api_settings.model_copy(update=changes)


@pytest.fixture
def web(store: Store, keyed: Settings, bell: object) -> Iterator[TestClient]:
    with TestClient(create_app(store, keyed, bell)) as client:
        yield client


def made(store: Store, settings: Settings, *scopes: Scope, **more: Any) -> dict[str, str]:
    row = {"owner": "one", "name": "test", "scopes": scopes} | more
    _, token = create_key(store, settings, **row)
    return {"Authorization": f"Bearer {token}"}


def operations(app: Any) -> Iterator[tuple[str, str, str, list[dict[str, list[str]]] | None]]:
    """Method, documented path, the path filled in, and its `security`, of every route there is."""
    assert isinstance(app, FastAPI)
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            filled = re.sub(r"\{(\w+)\}", lambda match: IDS[match[1]], path)
            yield method, path, filled, operation.get("security")


def test_every_route_names_its_scope(web: TestClient) -> None:
    open_paths = set()
    for method, path, _, security in operations(web.app):
        assert security is not None, f"{method} {path} names no scope: openapi_extra=needs(...)"
        if security == []:
            open_paths.add(path)
        else:
            Scope(security[0][SCHEME][0])
    assert open_paths == {"/v1/healthz", "/v1/readyz"}


def test_without_a_key_401_and_with_another_scope_403(
    web: TestClient, store: Store, keyed: Settings
) -> None:
    headers = {scope: made(store, keyed, *(set(Scope) - {scope, Scope.ADMIN})) for scope in Scope}
    fitting = {scope: made(store, keyed, scope) for scope in Scope}
    tried = 0
    for method, _, path, security in operations(web.app):
        if not security:
            continue
        needed = Scope(security[0][SCHEME][0])
        for place in (path, path.removeprefix("/v1")):
            assert web.request(method, place).status_code == 401, (method, place)
            # Uploads are refused by their type before anything else is looked at.
            kind = {"Content-Type": "multipart/form-data; boundary=x"} if "adapters" in path else {}
            refused = web.request(method, place, headers=headers[needed] | kind)
            assert refused.status_code == 403, (method, place, refused.text)
            assert refused.json()["code"] == "insufficient_scope"
            assert refused.json()["details"] == {"scope": needed}
            allowed = web.request(method, place, headers=fitting[needed])
            assert allowed.status_code not in (401, 403), (method, place)
            assert allowed.status_code < 500, (method, place)
            tried += 1
    assert tried > 50


def test_a_route_that_names_no_scope_is_closed_to_all_but_admin(
    store: Store, keyed: Settings, bell: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi import APIRouter

    from service import app as built

    forgetful = APIRouter()
    forgetful.get("/forgotten", operation_id="forgotten")(lambda: {"ok": True})
    module = type("Module", (), {"router": forgetful})
    monkeypatch.setattr(built, "NOUNS", (*built.NOUNS, module))
    with TestClient(create_app(store, keyed, bell)) as web:
        everything_else = made(store, keyed, *(set(Scope) - {Scope.ADMIN}))
        assert web.get("/v1/forgotten", headers=everything_else).status_code == 403
        admin = {"Authorization": f"Bearer {ROOT_KEY}"}
        assert web.get("/v1/forgotten", headers=admin).status_code == 200
        found = [security for _, path, _, security in operations(web.app) if "forgotten" in path]
        assert found == [None]  # what test_every_route_names_its_scope would stumble over


def test_a_key_is_shown_once_and_stored_as_a_digest(
    web: TestClient, store: Store, keyed: Settings
) -> None:
    admin = {"Authorization": f"Bearer {ROOT_KEY}"}
    answer = web.post("/v1/keys", json={"owner": "one", "name": "CI"}, headers=admin)
    assert answer.status_code == 201, answer.text
    token = answer.json()["key"]
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2]
    assert len(secret) == 43
    listed = web.get("/v1/keys", headers=admin)
    assert secret not in listed.text
    assert [key["id"] for key in listed.json()["data"]] == [answer.json()["id"]]
    row = store.key(answer.json()["id"])
    assert secret not in repr(row)
    mine = {"Authorization": f"Bearer {token}"}
    assert web.get("/v1/jobs", headers=mine).status_code == 200
    assert store.key(row.id).last_used_at is not None
    other_pepper = keyed.model_copy(update={"key_pepper": SecretStr("another-pepper-altogether")})
    with TestClient(create_app(store, other_pepper, web.app.state.ring)) as elsewhere:  # type: ignore[attr-defined]
        assert elsewhere.get("/v1/jobs", headers=mine).status_code == 401


def test_a_revoked_key_is_dead_at_once(web: TestClient, store: Store, keyed: Settings) -> None:
    headers = made(store, keyed, Scope.JOBS_READ)
    assert web.get("/v1/jobs", headers=headers).status_code == 200
    [row] = store.list_keys()
    admin = {"Authorization": f"Bearer {ROOT_KEY}"}
    first = web.delete(f"/v1/keys/{row.id}", headers=admin).json()
    assert not first["live"]
    assert web.get("/v1/jobs", headers=headers).status_code == 401
    assert web.delete(f"/v1/keys/{row.id}", headers=admin).json() == first


def test_an_expired_key_is_dead(web: TestClient, store: Store, keyed: Settings) -> None:
    headers = made(store, keyed, Scope.JOBS_READ, lifetime_seconds=3600.0)
    assert web.get("/v1/jobs", headers=headers).status_code == 200
    with store.engine.begin() as connection:
        connection.execute(update(keys).values(expires_at=epoch_now() - 1))
    assert web.get("/v1/jobs", headers=headers).status_code == 401


@pytest.mark.parametrize("change", ["id", "secret", "short", "case"])
def test_a_key_that_is_almost_right(
    change: str, web: TestClient, store: Store, keyed: Settings
) -> None:
    headers = made(store, keyed, Scope.JOBS_READ)
    other = made(store, keyed, Scope.JOBS_READ)
    token, strange = (one["Authorization"].removeprefix("Bearer ") for one in (headers, other))
    tried = {
        "id": strange[:30] + token[30:],
        "secret": token[:-3] + ("AAA" if not token.endswith("AAA") else "BBB"),
        "short": token[:-1],
        "case": token.swapcase(),
    }[change]
    answer = web.get("/v1/jobs", headers={"Authorization": f"Bearer {tried}"})
    assert answer.status_code == 401
    assert tried not in answer.text


def test_the_first_key_closes_a_keyless_service_and_the_last_revoked_does_not_open_it(
    store: Store, api_settings: Settings, bell: object
) -> None:
    with TestClient(create_app(store, api_settings, bell)) as web:
        assert web.get("/v1/jobs").status_code == 200
        headers = made(store, api_settings, Scope.JOBS_READ)
        assert web.get("/v1/jobs").status_code == 401
        assert web.get("/v1/jobs", headers=headers).status_code == 200
        store.revoke_key(store.list_keys()[0].id)
        assert web.get("/v1/jobs").status_code == 401
    pepper = Path(api_settings.home) / "key_pepper"
    assert pepper.stat().st_mode & 0o777 == 0o600


def test_a_stored_key_lets_the_service_listen_outside(
    store: Store, api_settings: Settings, bell: object
) -> None:
    made(store, api_settings, Scope.JOBS_READ)
    outside = api_settings.model_copy(update={"host": "0.0.0.0"})
    with TestClient(create_app(store, outside, bell)) as web:
        assert web.get("/v1/jobs").status_code == 401
