"""Jobs over HTTP: submit, show, list, cancel, resume, delete."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.settings import Settings
from service.store import Store
from tests.results import run_next

Json = dict[str, Any]


def submit(api: TestClient, spec: Json, **options: Any) -> Json:
    answer = api.post("/v1/jobs", json=spec, **options)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_submitting_queues_rings_and_points_at_the_job(
    api: TestClient, finetune: Json, bell: Any, store: Store
) -> None:
    answer = api.post("/v1/jobs", json=finetune | {"metadata": {"pr": "7"}})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert "Idempotency-Replayed" not in answer.headers
    assert job["status"] == "queued"
    assert job["attempt"] == 0
    assert job["created_at"].endswith("Z")
    assert job["spec"]["training"]["lora"]["lora_alpha"] == 1.0
    assert job["metadata"] == {"pr": "7"}
    assert bell.rung == [job["id"]]
    assert api.get(answer.headers["Location"]).json() == job
    assert store.job(job["id"]).state == "queued"


def test_root_and_v1_are_one_service(api: TestClient, finetune: Json) -> None:
    job = api.post("/jobs", json=finetune).json()
    assert api.get(f"/jobs/{job['id']}").json() == api.get(f"/v1/jobs/{job['id']}").json()


def test_a_job_that_does_not_say_is_a_finetune(api: TestClient, finetune: Json) -> None:
    spec = {name: value for name, value in finetune.items() if name != "type"}
    assert submit(api, spec)["type"] == "finetune"


def test_plain_lora_resolves_alpha_to_the_rank(api: TestClient, finetune: Json) -> None:
    finetune["training"]["lora"] = {"r": 12, "use_rslora": False}
    assert submit(api, finetune)["spec"]["training"]["lora"]["lora_alpha"] == 12.0


def test_an_idempotency_key_submits_once(
    api: TestClient, finetune: Json, bell: Any, store: Store
) -> None:
    key = {"Idempotency-Key": "one"}
    first = submit(api, finetune, headers=key)
    again = api.post("/v1/jobs", json=finetune, headers=key)
    assert again.status_code == 202
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first["id"]
    other = api.post("/v1/jobs", json=finetune | {"metadata": {"a": "b"}}, headers=key)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert other.json()["param"] == "Idempotency-Key"
    assert len(store.list_jobs()[0]) == 1
    assert bell.rung == [first["id"]]


def test_a_replayed_key_asks_nothing_again(
    api: TestClient, finetune: Json, roots: Path, bell: Any
) -> None:
    key = {"Idempotency-Key": "one"}
    finetune["training"]["lora"] = {"r": 12, "use_rslora": False}
    first = submit(api, finetune, headers=key)
    (roots / "data" / "rows.jsonl").unlink()
    assert api.post("/v1/jobs", json=finetune).status_code == 422
    again = api.post("/v1/jobs", json=finetune, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert bell.rung == [first["id"]]
    # What was filled in is not what was asked.
    finetune["training"]["lora"]["lora_alpha"] = 12.0
    other = api.post("/v1/jobs", json=finetune, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_lists_page_by_cursor_and_filter(api: TestClient, finetune: Json, store: Store) -> None:
    ids = [submit(api, finetune | {"metadata": {"n": str(i)}})["id"] for i in range(3)]
    first = api.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    rest = api.get("/jobs", params={"limit": 2, "after": ids[1]}).json()
    assert [job["id"] for job in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    run_next(store)
    for params, expected in [
        ({"status": "succeeded"}, [ids[0]]),
        ({"metadata[n]": "1"}, [ids[1]]),
        ({"metadata[n]": "1", "status": "succeeded"}, []),
        ({"type": "sweep"}, []),
        ({"base_model": "tiny"}, ids[::-1]),
        ({"base_model": "other"}, []),
    ]:
        found = api.get("/jobs", params=params).json()
        assert [job["id"] for job in found["data"]] == expected, params


def test_a_cursor_that_is_no_job_is_not_found(api: TestClient) -> None:
    answer = api.get("/jobs", params={"after": "job_nowhere"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"status": "sleeping"}, "status"),
        ({"type": "party"}, "type"),
        ({"state": "running"}, "state"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    sqlite_api: TestClient, params: Json, param: str
) -> None:
    answer = sqlite_api.get("/jobs", params=params)
    assert answer.status_code == 422
    assert answer.json()["param"] == param


def test_sweeps_show_their_children(
    api: TestClient, finetune: Json, bell: Any, store: Store
) -> None:
    sweep = submit(api, finetune | {"type": "sweep", "ranks": [4, 8], "seeds": [1, 2]})
    assert sweep["children"] == {
        "total": 4,
        "queued": 4,
        "running": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
    }
    children = api.get("/jobs", params={"sweep": sweep["id"]}).json()["data"]
    assert {child["spec"]["training"]["lora"]["r"] for child in children} == {4, 8}
    assert all(child["sweep"] == sweep["id"] for child in children)
    assert bell.rung == [sweep["id"]]
    run_next(store)
    shown = api.get(f"/jobs/{sweep['id']}").json()
    assert shown["status"] == "running"
    assert shown["children"]["succeeded"] == 1
    assert shown["progress"] == {"done": 1, "total": 4, "unit": "jobs"}


def test_a_sweep_rings_every_idle_worker(
    api: TestClient, finetune: Json, bell: Any, store: Store
) -> None:
    for name, state in [("a", "idle"), ("b", "idle"), ("c", "busy")]:
        store.beat_worker(name, state=state)
    sweep = submit(api, finetune | {"type": "sweep", "ranks": [4, 8, 16], "seeds": [17]})
    assert bell.rung == [sweep["id"]] * 2


def test_cancelling_a_queued_job_ends_it(api: TestClient, finetune: Json) -> None:
    job = submit(api, finetune)
    answer = api.post(f"/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = api.post(f"/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_cancelling_a_running_job_asks_its_worker(
    api: TestClient, finetune: Json, store: Store
) -> None:
    job = submit(api, finetune)
    claim = store.claim("worker-1")
    assert claim is not None
    answer = api.post(f"/jobs/{job['id']}/cancel")
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert answer.json()["cancel_requested"] is True
    assert store.beat(claim) is True


def test_resume_queues_again_and_only_what_has_stopped(
    api: TestClient, finetune: Json, bell: Any
) -> None:
    job = submit(api, finetune)
    refused = api.post(f"/jobs/{job['id']}/resume")
    assert refused.status_code == 409
    assert refused.json()["code"] == "not_resumable"
    api.post(f"/jobs/{job['id']}/cancel")
    resumed = api.post(f"/jobs/{job['id']}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    assert bell.rung == [job["id"]] * 2


def test_a_sweep_that_half_succeeded_resumes_the_other_half(
    api: TestClient, finetune: Json, bell: Any, store: Store
) -> None:
    sweep = submit(api, finetune | {"type": "sweep", "ranks": [4, 8], "seeds": [17]})["id"]
    run_next(store)
    claim = store.claim("worker-1")
    assert claim is not None
    store.fail(claim, {"code": "internal_error", "detail": "x", "class": "system"})
    assert api.get(f"/jobs/{sweep}").json()["status"] == "succeeded"
    resumed = api.post(f"/jobs/{sweep}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    assert bell.rung == [sweep] * 2
    assert run_next(store) == claim.job_id
    assert api.get(f"/jobs/{sweep}").json()["children"]["succeeded"] == 2
    assert api.post(f"/jobs/{sweep}/resume").status_code == 409


def test_failures_carry_class_code_and_field(api: TestClient, finetune: Json, store: Store) -> None:
    job = submit(api, finetune)
    claim = store.claim("worker-1")
    assert claim is not None
    error = {
        "code": "training_diverged",
        "detail": "loss is NaN at step 7",
        "class": "user",
        "param": "training.learning_rate",
        "details": {"step": 7},
    }
    store.fail(claim, error)
    shown = api.get(f"/jobs/{job['id']}").json()
    assert shown["status"] == "failed"
    assert shown["error"] == error


def test_deleting_takes_the_artifacts_along(
    api: TestClient, finetune: Json, store: Store, api_settings: Settings
) -> None:
    job = submit(api, finetune)
    refused = api.delete(f"/jobs/{job['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "still_running")
    folder = api_settings.home / "artifacts" / job["id"] / "1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    listed = {"name": "result.json", "bytes": 2, "sha256": f"sha256:{'0' * 64}"}
    run_next(store, artifacts=(listed,), artifacts_prefix=f"{job['id']}/1")
    assert api.delete(f"/jobs/{job['id']}").status_code == 204
    assert not folder.exists()
    assert api.get(f"/jobs/{job['id']}").status_code == 404
    assert api.get("/laws").json()["pending"] == []


def test_deleting_a_sweep_takes_its_children_along(
    api: TestClient, finetune: Json, store: Store, api_settings: Settings
) -> None:
    sweep = submit(api, finetune | {"type": "sweep", "ranks": [4, 8], "seeds": [17]})
    folders = []
    for n in range(2):
        folder = api_settings.home / "artifacts" / f"child-{n}"
        folder.mkdir(parents=True)
        folders.append(folder)
        run_next(store, artifacts_prefix=f"child-{n}")
    assert api.delete(f"/jobs/{sweep['id']}").status_code == 204
    assert api.get("/jobs").json()["data"] == []
    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/resume"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/checkpoints"),
        ("GET", "/result"),
        ("GET", "/tokens"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/x"),
    ],
)
def test_unknown_jobs_are_not_found(sqlite_api: TestClient, method: str, path: str) -> None:
    answer = sqlite_api.request(method, f"/v1/jobs/job_01JQ0000000000000000000000{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
