"""What is another owner's does not exist: the same 404 as for an id that nobody ever had."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.app import create_app
from service.keys import create_key
from service.scopes import Scope
from service.settings import Settings
from service.store import Store
from tests.model_folders import write_adapter
from tests.results import run_next
from tests.sent_adapters import files_of

Json = dict[str, Any]
ALL_BUT_ADMIN = set(Scope) - {Scope.ADMIN}


@pytest.fixture
def web(store: Store, api_settings: Settings, bell: object, roots: Path) -> Iterator[TestClient]:
    """Over SQLite and over PostgreSQL."""
    keyed = api_settings.model_copy(
        update={"api_key": SecretStr("a-bootstrap-key-of-enough-letters")}
    )
    with TestClient(create_app(store, keyed, bell)) as client:
        yield client


@pytest.fixture
def mine(store: Store, api_settings: Settings) -> dict[str, str]:
    return key_of(store, api_settings, "mine")


@pytest.fixture
def theirs(store: Store, api_settings: Settings) -> dict[str, str]:
    return key_of(store, api_settings, "theirs")


def key_of(store: Store, settings: Settings, owner: str) -> dict[str, str]:
    _, token = create_key(store, settings, owner=owner, name="test", scopes=ALL_BUT_ADMIN)
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def ids(web: TestClient, store: Store, mine: dict[str, str], finetune: Json, roots: Path) -> Json:
    """One of everything, mine: a finished job, a sweep, an adapter, a law, a group."""
    job = web.post("/v1/jobs", json=finetune, headers=mine | {"Idempotency-Key": "one"}).json()
    assert run_next(store) == job["id"]
    sweep = web.post(
        "/v1/jobs",
        json=finetune | {"type": "sweep", "ranks": [4, 8, 16], "seeds": [1, 2]},
        headers=mine,
    ).json()
    for _ in range(6):
        run_next(store)
    child = store.list_jobs(sweep=sweep["id"])[0][0].id
    folder = write_adapter(roots / "sent")
    sent = web.post(
        "/v1/adapters", params={"base_model": "tiny"}, files=files_of(folder), headers=mine
    )
    assert sent.status_code == 201, sent.text
    laws = web.post("/v1/laws", json={"filter": {"sweep": sweep["id"]}}, headers=mine)
    assert laws.status_code == 201, laws.text
    law = laws.json()["data"][0]
    return {
        "job_id": job["id"],
        "sweep": sweep["id"],
        "child": child,
        "adapter_id": sent.json()["id"],
        "law_id": law["id"],
        "group": law["group"],
        "name": "result.json",
        "picture_format": "svg",
    }


def test_every_route_with_an_id_says_not_found_to_another_owner(
    web: TestClient, store: Store, ids: Json, theirs: dict[str, str], mine: dict[str, str]
) -> None:
    bodies = {
        "/v1/laws/{law_id}/predict": {"rank": 8, "step": 50},
        "/v1/laws/{law_id}/plan": {"max_forgetting": 1.0},
    }
    before = store.list_jobs(limit=100)
    tried = set()
    for path, methods in web.app.openapi()["paths"].items():  # type: ignore[attr-defined]
        named = set(re.findall(r"\{(\w+)\}", path)) & {"job_id", "law_id", "adapter_id", "gate_id"}
        for method in methods if named else ():
            for job in ("job_id", "sweep", "child"):
                known = ids | {"job_id": ids[job], "gate_id": ids["job_id"].replace("job", "gate")}
                place = re.sub(r"\{(\w+)\}", lambda m, known=known: known[m[1]], path)  # type: ignore[misc]
                body = bodies.get(path)
                answer = web.request(method, place, headers=theirs, json=body)
                assert answer.status_code == 404, (method, place, answer.text)
                strange = re.sub(r"_[0-9A-Z]{26}", "_01JQ0000000000000000000000", place)
                nobody = web.request(method, strange, headers=theirs, json=body)
                assert answer.json()["title"] == nobody.json()["title"]
                tried.add((method, path))
    assert len(tried) >= 18
    assert store.list_jobs(limit=100) == before
    for kind in ("jobs", "laws", "adapters"):
        [own] = {"jobs": ["job_id"], "laws": ["law_id"], "adapters": ["adapter_id"]}[kind]
        assert web.get(f"/v1/{kind}/{ids[own]}", headers=mine).status_code == 200


def test_lists_and_cursors_show_only_ones_own(
    web: TestClient, ids: Json, theirs: dict[str, str], mine: dict[str, str]
) -> None:
    admin = {"Authorization": "Bearer a-bootstrap-key-of-enough-letters"}
    for kind in ("jobs", "adapters", "laws"):
        own = {"jobs": "job_id", "adapters": "adapter_id", "laws": "law_id"}[kind]
        assert web.get(f"/v1/{kind}", headers=theirs).json()["data"] == []
        assert web.get(f"/v1/{kind}", headers=mine).json()["data"] != []
        cursor = {"after": ids[own]}
        assert web.get(f"/v1/{kind}", params=cursor, headers=theirs).status_code == 404
    assert web.get("/v1/jobs", params={"sweep": ids["sweep"]}, headers=theirs).json()["data"] == []
    assert web.get("/v1/laws", params={"group": ids["group"]}, headers=theirs).json()["data"] == []
    everything = web.get("/v1/laws?all_versions=true", headers=theirs).json()
    assert everything["data"] == []
    assert len(web.get("/v1/jobs?limit=100", headers=admin).json()["data"]) == 8
    assert web.get(f"/v1/jobs/{ids['job_id']}", headers=admin).status_code == 200


@pytest.mark.parametrize("what", ["job", "id", "group"])
def test_specs_cannot_name_what_is_anothers(
    what: str,
    web: TestClient,
    ids: Json,
    theirs: dict[str, str],
    mine: dict[str, str],
    finetune: Json,
    roots: Path,
) -> None:
    write_adapter(roots / "models" / "foreign")
    adapter = {
        "job": {"job": ids["job_id"]},
        "id": {"id": ids["adapter_id"]},
        "group": {"path": "foreign", "group": ids["group"], "run": "x", "step": 5},
    }[what]
    spec = {
        "type": "evaluate",
        "base_model": "tiny",
        "adapters": [adapter],
        "evaluation": finetune["evaluation"],
    }
    if what == "group":
        spec |= {"dataset": finetune["dataset"], "max_length": 64}
    refused = web.post("/v1/jobs", json=spec, headers=theirs)
    assert refused.status_code == 422
    assert " no " in f" {refused.json()['detail']}"
    assert web.post("/v1/jobs", json=spec, headers=mine).status_code == 202


def test_a_filter_finds_no_points_of_others(
    web: TestClient, ids: Json, theirs: dict[str, str]
) -> None:
    for wanted in ({"sweep": ids["sweep"]}, {"group": ids["group"]}, {"base_model": "tiny"}):
        answer = web.post("/v1/laws", json={"filter": wanted}, headers=theirs)
        assert answer.json()["code"] == "too_few_points"
        assert answer.json()["details"]["n_points"] == 0


def test_idempotency_keys_and_uploads_are_each_owners_own(
    web: TestClient,
    ids: Json,
    mine: dict[str, str],
    theirs: dict[str, str],
    finetune: Json,
    roots: Path,
) -> None:
    same = {"Idempotency-Key": "one"}
    other = web.post("/v1/jobs", json=finetune, headers=theirs | same)
    assert other.json()["id"] != ids["job_id"]
    assert "Idempotency-Replayed" not in other.headers
    assert web.post("/v1/jobs", json=finetune, headers=mine | same).json()["id"] == ids["job_id"]
    sent = web.post(
        "/v1/adapters",
        params={"base_model": "tiny"},
        files=files_of(roots / "sent"),
        headers=theirs,
    )
    assert sent.status_code == 201
    assert sent.json()["id"] != ids["adapter_id"]


def test_a_residual_is_of_its_owners_runs_whoever_asks(
    web: TestClient,
    store: Store,
    ids: Json,
    mine: dict[str, str],
    theirs: dict[str, str],
    finetune: Json,
) -> None:
    """Theirs are of the same recipe, and would change the line."""
    admin = {"Authorization": "Bearer a-bootstrap-key-of-enough-letters"}
    before = web.get(f"/v1/jobs/{ids['job_id']}", headers=mine).json()["law"]
    assert before is not None
    for rank in (24, 48):
        training = finetune["training"] | {"lora": {"r": rank}}
        web.post("/v1/jobs", json=finetune | {"training": training}, headers=theirs)
        run_next(store)
    assert len(store.points(group=ids["group"])[0].points) > before["n_runs"]
    for asking in (mine, admin):
        path = f"/v1/jobs/{ids['job_id']}"
        assert web.get(path, headers=asking).json()["law"] == before
        assert web.get(f"{path}/result", headers=asking).json()["law"] == before


def test_an_admins_job_works_with_what_its_owner_may_see(
    web: TestClient, store: Store, api_settings: Settings, ids: Json, finetune: Json
) -> None:
    """It is refused at the door, not hours later by the worker; the bootstrap key is nobody's."""
    _, token = create_key(store, api_settings, owner="ops", name="test", scopes=[Scope.ADMIN])
    spec = {
        "type": "evaluate",
        "base_model": "tiny",
        "adapters": [{"job": ids["job_id"]}],
        "evaluation": finetune["evaluation"],
    }
    refused = web.post("/v1/jobs", json=spec, headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 422
    assert f"no job {ids['job_id']}" in refused.json()["detail"]
    bootstrap = {"Authorization": "Bearer a-bootstrap-key-of-enough-letters"}
    assert web.post("/v1/jobs", json=spec, headers=bootstrap).status_code == 202
