"""Law residuals over HTTP: each run against the others of its recipe, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.recipe import points_of
from service.schemas.spec import EvaluateSpec
from service.store import PointGroup, Store
from tests.model_folders import write_adapter
from tests.refusals import refused
from tests.results import result_body, run_next
from tests.service.test_api_laws import run_ranks

Json = dict[str, Any]
JUDGED = 8
"""The rank that forgets more than it should."""
STEPS = (25, 40, 60, 80, 100)


@pytest.fixture
def ids(api: TestClient, store: Store, finetune: Json) -> list[str]:
    """Jobs of six ranks on one line, of which the second forgot 0.03 nats too much."""
    found = []
    for rank in (2, JUDGED, 12, 32, 48, 64):
        training = finetune["training"] | {"lora": {"r": rank}}
        found.append(api.post("/jobs", json=finetune | {"training": training}).json()["id"])
        finish(store, rank, by=0.03 if rank == JUDGED else 0.0)
    return found


def finish(store: Store, rank: int, *, by: float) -> None:
    held = store.claim("worker-1")
    assert held is not None
    body = result_body(rank=rank, steps=STEPS)
    for checkpoint in body["checkpoints"]:
        checkpoint["forgetting"]["kl"]["value"] += by
    store.finish(held, body, points=points_of(held.job_id, held.spec, body))


def test_a_job_is_measured_against_the_other_runs_of_its_recipe(
    api: TestClient, store: Store, ids: list[str]
) -> None:
    job = api.get(f"/jobs/{ids[1]}").json()
    law = job["law"]
    assert job["law_reason"] is None
    assert law["residual"] == pytest.approx(0.03, abs=1e-6)
    measured = store.result(ids[1])["checkpoints"][-1]["forgetting"]["kl"]["value"]
    assert law["measured"] == measured
    assert law["expected"] == pytest.approx(measured - 0.03, abs=1e-6)
    assert law["z"] > 1.96
    assert not law["pi95"][0] <= law["measured"] <= law["pi95"][1]
    assert (law["form"], law["metric"], law["n_runs"]) == ("linear", "kl", 5)
    assert (law["run"], law["step"]) == (ids[1], 100)
    (joint,) = law["also"]
    assert (joint["form"], joint["run"], joint["step"]) == ("joint", ids[1], 100)
    assert joint["residual"] == pytest.approx(0.03, abs=0.01)
    result = api.get(f"/jobs/{ids[1]}/result").json()
    assert (result["law"], result["law_reason"]) == (law, None)


def test_the_law_is_one_that_can_be_read_and_lacks_the_whole_run(
    api: TestClient, ids: list[str]
) -> None:
    law = api.get(f"/jobs/{ids[1]}").json()["law"]
    for one in (law, *law["also"]):
        read = api.get(f"/laws/{one['id']}").json()
        assert (read["form"], read["metric"], read["n_runs"]) == (one["form"], "kl", 5)
        assert {point["run"] for point in read["points"]} == set(ids) - {ids[1]}


def test_it_is_kept_until_there_are_other_points(
    api: TestClient, store: Store, finetune: Json, ids: list[str]
) -> None:
    first = api.get(f"/jobs/{ids[1]}").json()["law"]
    n_laws = len(store.list_laws(limit=100)[0])
    assert api.get(f"/jobs/{ids[1]}").json()["law"] == first
    assert len(store.list_laws(limit=100)[0]) == n_laws
    training = finetune["training"] | {"lora": {"r": 16}}
    api.post("/jobs", json=finetune | {"training": training})
    finish(store, 16, by=0.001)
    second = api.get(f"/jobs/{ids[1]}").json()["law"]
    assert second["id"] != first["id"]
    assert second["n_runs"] == 6
    assert api.get(f"/laws/{first['id']}").status_code == 200


def test_points_that_are_deleted_meanwhile_are_no_fault(
    api: TestClient, store: Store, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.points
    gone: list[PointGroup] = []
    monkeypatch.setattr(store, "points", lambda **by: gone if "group" in by else stored(**by))
    job = api.get(f"/jobs/{ids[1]}").json()
    assert job["law"] is None
    assert "there are 0" in job["law_reason"]


def test_lists_do_not_compute_it(api: TestClient, store: Store, ids: list[str]) -> None:
    assert {job["law"] for job in api.get("/jobs").json()["data"]} == {None}
    assert store.list_laws()[0] == []


def test_too_few_other_runs_are_no_error(api: TestClient, store: Store, finetune: Json) -> None:
    sweep = run_ranks(api, store, finetune, [2, 8, 32])
    for job in api.get("/jobs", params={"sweep": sweep}).json()["data"]:
        shown = api.get(f"/jobs/{job['id']}").json()
        assert shown["law"] is None
        assert shown["law_reason"].endswith("there are 2")
        result = api.get(f"/jobs/{job['id']}/result").json()
        assert (result["law"], result["law_reason"]) == (None, shown["law_reason"])
    parent = api.get(f"/jobs/{sweep}").json()
    assert (parent["law"], parent["law_reason"]) == (None, None)


def test_an_unfinished_job_has_none(api: TestClient, finetune: Json, ids: list[str]) -> None:
    queued = api.post("/jobs", json=finetune).json()
    shown = api.get(f"/jobs/{queued['id']}").json()
    assert (shown["law"], shown["law_reason"]) == (None, None)


def test_runs_of_another_trainer_are_measured_each(
    api: TestClient, store: Store, ids: list[str]
) -> None:
    """Two foreign runs in one evaluation: one as the law says, the last one 0.05 above."""
    (group,) = store.points()
    body = result_body(rank=16, steps=STEPS)
    runs = {"seed-1": (40, 0.0), "seed-2": (100, 0.05)}
    adapters = [
        {"path": "theirs", "group": group.group, "run": run, "step": step}
        for run, (step, _) in runs.items()
    ]
    points = []
    (ours,) = points_of("job_1", store.job(ids[0]).spec, body)
    for run, (step, by) in runs.items():
        at = next(point for point in ours.points if point["step"] == step)
        points.append(at | {"run": run, "kl": at["kl"] + by, "learning_rate": None})
    job = queue_evaluation(store, adapters)
    held = store.claim("worker-1")
    assert held is not None
    store.finish(held, body, points=[PointGroup(group.group, group.recipe, points)])
    law = api.get(f"/jobs/{job}").json()["law"]
    assert (law["run"], law["n_runs"]) == ("seed-2", 7)
    assert law["residual"] == pytest.approx(0.05, abs=0.02)
    assert [(one["run"], one["form"]) for one in law["also"]] == [
        ("seed-2", "joint"),
        ("seed-1", "linear"),
    ]
    assert {point["run"] for point in store.points()[0].points} == {*ids, *runs}


def queue_evaluation(store: Store, adapters: list[Json]) -> str:
    body = {"type": "evaluate", "base_model": "tiny", "dataset": {"path": "rows.jsonl"}}
    return store.add_job(EvaluateSpec.model_validate(body | {"adapters": adapters}))[0].id


def test_one_run_alone_may_be_a_jobs_only_point(
    api: TestClient, store: Store, finetune: Json
) -> None:
    api.post("/jobs", json=finetune)
    job = run_next(store)
    assert api.get(f"/jobs/{job}").json()["law_reason"].endswith("there are 0")


def test_what_cannot_be_a_point_is_refused_at_the_door(
    api: TestClient, store: Store, ids: list[str], roots: Path
) -> None:
    (group,) = store.points()
    write_adapter(roots / "models" / "theirs")
    adapter = {"path": "theirs", "group": group.group, "run": "seed-1", "step": 30}
    body = {
        "type": "evaluate",
        "base_model": "tiny",
        "dataset": {"path": "rows.jsonl"},
        "max_length": 64,
        "evaluation": {"corpus": "corpus.txt", "context": 64},
        "adapters": [adapter],
    }
    for change, param in [
        ({"adapters": [adapter | {"group": f"sha256:{'0' * 64}"}]}, "adapters.0.group"),
        ({"max_length": 32}, "adapters.0.group"),
        ({"adapters": [adapter | {"rank": 5}]}, "adapters.0.rank"),
        ({"adapters": [adapter | {"step": 0}]}, "adapters.0.step"),
        ({"adapters": [adapter | {"learning_rate": 1}]}, "adapters.0.learning_rate"),
        ({"dataset": None}, "dataset"),
    ]:
        problem = refused(api.post("/jobs", json=body | change))
        assert problem["param"] == param, problem
    assert api.post("/jobs", json=body).status_code == 202
