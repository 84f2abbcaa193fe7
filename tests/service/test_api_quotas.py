"""Quotas and rates: refused before anything is stored, with the numbers. `admin` has none."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import RateLimited
from service.keys import create_key
from service.rate import Rate
from service.scopes import Scope
from service.settings import Settings
from service.store import Store
from tests.model_folders import write_adapter
from tests.sent_adapters import files_of
from tests.servers import redis_server

Json = dict[str, Any]
ADMIN = {"Authorization": "Bearer a-bootstrap-key-of-enough-letters"}
SWEEP = {"type": "sweep", "ranks": [4, 8], "seeds": [1]}


def opened(store: Store, settings: Settings, bell: object, **limits: Any) -> Any:
    key = {"api_key": SecretStr("a-bootstrap-key-of-enough-letters")}
    settings = settings.model_copy(update=key | limits)
    _, token = create_key(
        store, settings, owner="one", name="test", scopes=set(Scope) - {Scope.ADMIN}
    )
    return TestClient(create_app(store, settings, bell)), {"Authorization": f"Bearer {token}"}


def test_jobs_at_once(store: Store, api_settings: Settings, bell: object, finetune: Json) -> None:
    web, mine = opened(store, api_settings, bell, quota_jobs=2)
    with web:
        once = mine | {"Idempotency-Key": "once"}
        first = web.post("/v1/jobs", json=finetune, headers=once)
        assert first.status_code == 202
        refused = web.post("/v1/jobs", json=finetune | SWEEP, headers=mine)
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_jobs"
        assert refused.json()["details"] == {"jobs": 3, "max_jobs": 2}
        assert int(refused.headers["Retry-After"]) > 0
        assert len(store.list_jobs()[0]) == 1  # nothing of the sweep is left
        assert web.post("/v1/jobs", json=finetune, headers=mine).status_code == 202
        assert web.post("/v1/jobs", json=finetune, headers=mine).status_code == 429
        assert web.post("/v1/jobs", json=finetune, headers=once).json()["id"] == first.json()["id"]
        assert web.post("/v1/jobs", json=finetune | SWEEP, headers=ADMIN).status_code == 202
        web.post(f"/v1/jobs/{first.json()['id']}/cancel", headers=mine)
        assert web.post("/v1/jobs", json=finetune, headers=mine).status_code == 202
        again = web.post(f"/v1/jobs/{first.json()['id']}/resume", headers=mine)
        assert again.status_code == 429


def test_cost_of_one_job(
    sqlite_store: Store, api_settings: Settings, bell: object, finetune: Json
) -> None:
    web, mine = opened(sqlite_store, api_settings, bell, quota_job_cost=1e6)
    with web:
        refused = web.post("/v1/jobs", json=finetune, headers=mine)
        assert refused.status_code == 403
        found = refused.json()["details"]
        assert found["cost"] == found["tokens"] * found["parameters"]
        assert found["tokens"] > 3 * 100 * 8 * 64  # each trained token counts three times
        assert found["max_job_cost"] == 1e6
        assert sqlite_store.list_jobs() == ([], False)
        assert web.post("/v1/jobs", json=finetune, headers=ADMIN).status_code == 202


def test_bytes_of_adapters(
    sqlite_store: Store, api_settings: Settings, bell: object, roots: Path
) -> None:
    files = files_of(write_adapter(roots / "sent"))
    size = sum(len(content) for _, content in files.values())
    web, mine = opened(sqlite_store, api_settings, bell, quota_upload_bytes=size)
    with web:
        other = files_of(write_adapter(roots / "other", rank=8))
        for sent, status in ((files, 201), (other, 403)):
            answer = web.post(
                "/v1/adapters", params={"base_model": "tiny"}, files=sent, headers=mine
            )
            assert answer.status_code == status, answer.text
        assert answer.json()["details"]["used_bytes"] == size
        limits = web.get("/v1/limits", headers=mine).json()
        assert (limits["uploaded_bytes"], limits["max_upload_bytes"]) == (size, size)
        assert web.get("/v1/limits", headers=ADMIN).json()["max_jobs"] is None


def test_requests_of_one_key(sqlite_store: Store, api_settings: Settings, bell: object) -> None:
    web, mine = opened(sqlite_store, api_settings, bell, rate_limit="3/hour")
    with web:
        statuses = [web.get("/v1/jobs", headers=mine).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = web.get("/v1/jobs", headers=mine)
        assert refused.json()["code"] == "rate_limited"
        assert 0 < int(refused.headers["Retry-After"]) <= 7200
        assert web.get("/v1/jobs", headers=ADMIN).status_code == 200
        assert web.get("/v1/healthz").status_code == 200


def test_services_share_the_count_and_a_frozen_redis_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        settings = Settings(redis_url=url, rate_limit="4/hour")
        one, other = Rate(settings), Rate(settings)
        for rate in (one, other, one, other):
            rate.take("key_1")
        with pytest.raises(RateLimited):
            one.take("key_1")
        pid = client.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(4):
                one.take("key_1")  # counted in process from here on
            with pytest.raises(RateLimited):
                one.take("key_1")
        finally:
            os.kill(pid, signal.SIGCONT)
    # One request has asked the frozen server; the others did not wait for it.
    assert [record.name for record in caplog.records] == ["service.rate"]
