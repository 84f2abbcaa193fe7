"""Uploaded adapters: kept once, used by jobs, and gone when nobody needs them."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import AdapterUnreadable
from service.schemas.spec import EvaluateSpec
from service.settings import Settings
from service.store import Store
from service.uploads import PLACE, STALE_SECONDS, sweep_uploads
from tests.model_folders import LAYERS, WIDTH, lora_shapes, write_adapter, write_model
from tests.refusals import Json, refused
from tests.sent_adapters import CONFIG, WEIGHTS, Files, files_of, leftovers, send
from worker.digest import ADAPTER, digest_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA of rank 4 on two modules of both layers; not under any root of the service."""
    return write_adapter(tmp_path / "mine")


@pytest.fixture
def files(folder: Path) -> Files:
    return files_of(folder)


def evaluate(adapter_id: str, *, base_model: str = "tiny") -> Json:
    return {
        "type": "evaluate",
        "base_model": base_model,
        "adapters": [{"id": adapter_id}],
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }


def test_an_upload_is_kept_and_shown(
    api: TestClient, files: Files, folder: Path, api_settings: Settings
) -> None:
    answer = send(api, files)
    assert answer.status_code == 201
    adapter = answer.json()
    assert answer.headers["Location"] == f"/v1/adapters/{adapter['id']}"
    assert adapter["id"].startswith("adp_")
    assert adapter["digest"] == digest_folder(folder, ADAPTER)
    assert adapter["rank"] == 4
    assert adapter["trainable_params"] == LAYERS * 4 * (2 * WIDTH + WIDTH + 40)
    assert adapter["bytes"] == sum(len(content) for _, content in files.values())
    assert (adapter["base_model"], adapter["revision"]) == ("tiny", None)
    assert api.get(f"/v1/adapters/{adapter['id']}").json() == adapter
    assert api.get("/v1/adapters").json() == {"data": [adapter], "has_more": False}
    kept = leftovers(api_settings.home)
    hexed = adapter["digest"].removeprefix("sha256:")
    assert [name.split("/")[:3] for name in kept] == [["artifacts", "adapters", hexed]] * 2
    for name in kept:
        wanted = files[Path(name).name][1]
        assert (api_settings.home / name).read_bytes() == wanted


def test_the_same_content_is_the_same_adapter(
    api: TestClient, files: Files, api_settings: Settings
) -> None:
    first, again = send(api, files), send(api, dict(reversed(files.items())))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(leftovers(api_settings.home)) == 2


def test_uploads_at_once_make_one_adapter(
    api: TestClient, files: Files, api_settings: Settings
) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: send(api, files), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(leftovers(api_settings.home)) == 2


def test_a_base_of_other_tensors_makes_another_adapter_with_files_of_its_own(
    sqlite_api: TestClient, files: Files, roots: Path, api_settings: Settings
) -> None:
    write_model(roots / "models" / "other", config={"model_type": "mistral"})
    ids = [send(sqlite_api, files, base_model=name).json()["id"] for name in ("tiny", "other")]
    assert len(set(ids)) == 2
    assert len(leftovers(api_settings.home)) == 4
    answer = sqlite_api.post("/v1/jobs", json=evaluate(ids[0], base_model="other"))
    problem = refused(answer)
    assert (problem["code"], problem["param"]) == ("adapter_unreadable", "adapters.0.id")
    assert "was uploaded for tiny" in problem["detail"]
    assert sqlite_api.delete(f"/v1/adapters/{ids[0]}").status_code == 204
    assert len(leftovers(api_settings.home)) == 2
    assert sqlite_api.post("/v1/jobs", json=evaluate(ids[1], base_model="other")).is_success


def test_a_copy_of_the_base_by_another_name_takes_the_same_adapter(
    sqlite_api: TestClient, files: Files, roots: Path
) -> None:
    write_model(roots / "models" / "copy")
    adapter_id = send(sqlite_api, files).json()["id"]
    assert send(sqlite_api, files, base_model="copy").json()["id"] == adapter_id
    assert sqlite_api.post("/v1/jobs", json=evaluate(adapter_id, base_model="copy")).is_success


def test_an_adapter_of_a_queued_job_stays(
    api: TestClient, files: Files, store: Store, api_settings: Settings
) -> None:
    adapter_id = send(api, files).json()["id"]
    path = f"/v1/adapters/{adapter_id}"
    job = api.post("/v1/jobs", json=evaluate(adapter_id)).json()
    assert [one["id"] for one in job["spec"]["adapters"]] == [adapter_id]
    for start in (False, True):
        if start:
            assert store.claim("worker") is not None
        problem = refused(api.delete(path), status=409, at=path)
        assert problem["code"] == "adapter_in_use"
        assert problem["details"] == {"job": job["id"]}
        assert len(leftovers(api_settings.home)) == 2
    api.post(f"/v1/jobs/{job['id']}/cancel")
    claimed = store.job(job["id"])
    assert claimed.cancel_requested
    assert api.delete(path).status_code == 409


def test_an_adapter_that_no_job_waits_for_can_go(
    api: TestClient, files: Files, store: Store, api_settings: Settings
) -> None:
    adapter_id = send(api, files).json()["id"]
    path = f"/v1/adapters/{adapter_id}"
    job = api.post("/v1/jobs", json=evaluate(adapter_id)).json()
    api.post(f"/v1/jobs/{job['id']}/cancel")
    assert api.delete(path).status_code == 204
    assert leftovers(api_settings.home) == []
    for answer in (api.get(path), api.delete(path)):
        assert refused(answer, status=404, at=path)["code"] == "not_found"
    problem = refused(api.post("/v1/jobs", json=evaluate(adapter_id)))
    assert (problem["param"], adapter_id in problem["detail"]) == ("adapters.0.id", True)
    # As if it had gone between admission and the job's own transaction.
    with pytest.raises(AdapterUnreadable) as caught:
        store.add_job(EvaluateSpec.model_validate(evaluate(adapter_id)))
    assert caught.value.param == "adapters.0.id"
    assert len(store.list_jobs()[0]) == 1
    assert send(api, files).status_code == 201


def test_lists_come_in_pages(sqlite_api: TestClient, tmp_path: Path) -> None:
    sent = [
        send(sqlite_api, files_of(write_adapter(tmp_path / f"rank-{r}", rank=r))).json()
        for r in (2, 4, 8)
    ]
    first = sqlite_api.get("/v1/adapters", params={"limit": 2}).json()
    assert (first["data"], first["has_more"]) == ([sent[2], sent[1]], True)
    rest = sqlite_api.get("/v1/adapters", params={"after": sent[1]["id"]}).json()
    assert (rest["data"], rest["has_more"]) == ([sent[0]], False)
    one = sqlite_api.get("/v1/adapters", params={"digest": sent[1]["digest"]}).json()
    assert one["data"] == [sent[1]]
    assert sqlite_api.get("/v1/adapters", params={"base_model": "other"}).json()["data"] == []
    absent = sqlite_api.get("/v1/adapters", params={"after": "adp_none"})
    assert refused(absent, status=404, at="/adapters")["code"] == "not_found"


def test_a_store_that_takes_nothing_leaves_nothing(
    sqlite_store: Store, api_settings: Settings, files: Files, tmp_path: Path, bell
) -> None:
    (tmp_path / "file").write_text("")
    broken = api_settings.model_copy(update={"artifacts_url": f"file://{tmp_path}/file"})
    with TestClient(create_app(sqlite_store, broken, bell)) as web:
        problem = refused(send(web, files), status=503, at="/adapters")
        assert problem["code"] == "system_fault"
        assert web.get("/v1/adapters").json()["data"] == []
    assert leftovers(broken.home) == []


def test_any_store_that_fsspec_knows_will_do(
    sqlite_store: Store, api_settings: Settings, files: Files, bell
) -> None:
    elsewhere = api_settings.model_copy(update={"artifacts_url": "memory://shelf"})
    fs = fsspec.filesystem("memory")
    with TestClient(create_app(sqlite_store, elsewhere, bell)) as web:
        adapter_id = send(web, files).json()["id"]
        prefix = f"/shelf/{sqlite_store.adapter(adapter_id).prefix}"
        assert {name: fs.cat(f"{prefix}/{name}") for name in files} == {
            name: content for name, (_, content) in files.items()
        }
        assert web.delete(f"/v1/adapters/{adapter_id}").status_code == 204
    assert fs.find("/shelf") == []


def test_what_killed_processes_left_is_swept(
    sqlite_api: TestClient, sqlite_store: Store, files: Files, api_settings: Settings
) -> None:
    send(sqlite_api, files)
    home = api_settings.home
    kept = leftovers(home)
    recorded = str(Path(kept[0]).parent.relative_to("artifacts"))
    orphan = home / "artifacts" / "adapters" / "0" / "1"
    orphan.mkdir(parents=True)
    (orphan / WEIGHTS).write_bytes(b"never recorded")
    for name, place in [("a", recorded), ("b", "adapters/0/1"), ("c", None)]:
        left = home / "uploads" / name
        left.mkdir(parents=True)
        (left / CONFIG).write_text("{}")
        if place is not None:
            (left / PLACE).write_text(place)
    sweep_uploads(sqlite_store, api_settings)
    assert len(leftovers(home)) == 2 + 5 + 1
    old = time.time() - STALE_SECONDS - 60
    for path in (home / "uploads").rglob("*"):
        os.utime(path, (old, old))
    (home / "uploads" / "c" / CONFIG).touch()
    sweep_uploads(sqlite_store, api_settings)
    assert leftovers(home) == [*kept, f"uploads/c/{CONFIG}"]


def test_modules_trained_whole_and_dora_are_kept(sqlite_api: TestClient, tmp_path: Path) -> None:
    """They are measured by another route, but they are measured."""
    query = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {
        **lora_shapes(4),
        f"{query}.lora_magnitude_vector": (WIDTH,),
        "base_model.model.model.layers.1.mlp.down_proj.weight": (WIDTH, 40),
        "base_model.model.model.embed_tokens.weight": (64, WIDTH),
        "base_model.model.lm_head.weight": (64, WIDTH),
    }
    config = {"modules_to_save": ["down_proj"], "use_dora": True}
    folder = write_adapter(tmp_path / "whole", shapes=shapes, config=config)
    answer = send(sqlite_api, files_of(folder))
    assert answer.status_code == 201, answer.text
    plain = LAYERS * 4 * (2 * WIDTH + WIDTH + 40)
    # Copies of embeddings are not trained.
    assert answer.json()["trainable_params"] == plain + WIDTH + WIDTH * 40
    assert json.loads(files_of(folder)[CONFIG][1])["use_dora"]
