"""A sweep as one job over HTTP: work and time left, lost children, pilots and what follows them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.store import Claim, Store
from tests.results import run_next
from tests.specs import ERROR, claim, expire

Json = dict[str, Any]
PAPER = [8, 16, 32, 64, 128, 256]


def submit(api: TestClient, finetune: Json, **fields: Any) -> Json:
    body = {"type": "sweep", "ranks": [4, 8, 16], "seeds": [17], **fields}
    answer = api.post("/v1/jobs", json=finetune | body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def show(api: TestClient, sweep: Json) -> Json:
    return dict(api.get(f"/v1/jobs/{sweep['id']}").json())


def lose(store: Store) -> Claim:
    """A child whose worker dies for good."""
    held = claim(store)
    for _ in range(store.settings.max_failures):
        expire(store, held.job_id)
        assert store.reap() == [held.job_id]
        if store.job(held.job_id).state == "queued":
            held = claim(store)
    return held


def test_work_counts_what_running_children_have_done(
    api: TestClient, finetune: Json, store: Store
) -> None:
    sweep = submit(api, finetune)
    assert sweep["work"] == {"share_done": 0, "eta_seconds": None}
    held = claim(store)
    half = {"kind": "progress", "done": 50, "total": 100, "unit": "steps"}
    store.beat(held, [{"kind": "phase", "phase": "training"}, half])
    assert show(api, sweep)["work"]["eta_seconds"] is None  # how long it was loading is not known
    store.beat(held, [{"kind": "metric", "name": "train_loss", "step": 50, "value": 2.0}])
    work = show(api, sweep)["work"]
    # 100 steps and 8 checkpoints, of which each counts as 10 steps.
    assert work["share_done"] == pytest.approx(50 / 180 / 3)
    assert 0 <= work["eta_seconds"] < 60
    store.fail(held, ERROR)
    assert show(api, sweep)["work"] == {"share_done": pytest.approx(1 / 3), "eta_seconds": None}
    run_next(store)
    run_next(store)
    assert show(api, sweep)["work"] == {"share_done": 1, "eta_seconds": 0}
    child = api.get("/v1/jobs", params={"sweep": sweep["id"]}).json()["data"][0]
    assert (child["work"], child["pilot"], child["failed_children"]) == (None, None, None)


def test_a_lost_child_is_reported_and_the_law_is_fitted_on_what_is_there(
    api: TestClient, finetune: Json, store: Store
) -> None:
    sweep = submit(api, finetune, ranks=[4, 8, 16, 32])
    assert sweep["failed_children"] == []
    lost = lose(store)
    for _ in range(3):
        run_next(store)
    shown = show(api, sweep)
    assert (shown["status"], shown["children"]["failed"]) == ("succeeded", 1)
    (failed,) = shown["failed_children"]
    assert failed.pop("detail").startswith("the worker stopped answering")
    assert failed == {
        "job": lost.job_id,
        "rank": 4,
        "seed": 17,
        "learning_rate": 5e-5,
        "code": "worker_lost",
    }
    fitted = api.post("/v1/laws", json={"filter": {"sweep": sweep["id"]}}).json()["data"]
    assert {law["form"]: law["domain"]["ranks"] for law in fitted} == {
        "linear": [8, 16, 32],
        "joint": [8, 16, 32],
    }


def test_at_most_twenty_failures_are_listed(
    sqlite_api: TestClient, finetune: Json, sqlite_store: Store
) -> None:
    sweep = submit(sqlite_api, finetune, ranks=list(range(1, 23)))
    for _ in range(22):
        sqlite_store.fail(claim(sqlite_store), ERROR)
    shown = show(sqlite_api, sweep)
    assert shown["children"]["failed"] == 22
    assert [child["rank"] for child in shown["failed_children"]] == list(range(1, 21))


def test_a_cancelled_sweep_resumes_as_one_job(
    api: TestClient, finetune: Json, store: Store
) -> None:
    sweep = submit(api, finetune)
    run_next(store)
    held = claim(store)
    assert api.post(f"/v1/jobs/{sweep['id']}/cancel").status_code == 202
    assert store.beat(held) is True
    store.finish_cancelled(held)
    shown = show(api, sweep)
    assert (shown["status"], shown["children"]["cancelled"]) == ("cancelled", 2)
    assert api.post(f"/v1/jobs/{sweep['id']}/resume").status_code == 202
    shown = show(api, sweep)
    assert shown["work"] == {"share_done": pytest.approx(1 / 3), "eta_seconds": None}
    run_next(store)
    run_next(store)
    assert show(api, sweep)["children"]["succeeded"] == 3


def test_each_learning_rate_has_a_law_of_its_own(
    api: TestClient, finetune: Json, store: Store
) -> None:
    sweep = submit(api, finetune, learning_rates=[1e-4, 1e-3])
    assert sweep["children"]["total"] == 6
    for _ in range(6):
        run_next(store)
    body = {"filter": {"sweep": sweep["id"]}, "forms": ["joint"]}
    laws = api.post("/v1/laws", json=body).json()["data"]
    assert sorted(law["recipe"]["learning_rate"] for law in laws) == [1e-4, 1e-3]
    assert [law["domain"]["ranks"] for law in laws] == [[4, 8, 16]] * 2


def test_a_pilot_says_what_it_costs_and_what_it_is_for(
    api: TestClient, finetune: Json, store: Store
) -> None:
    plain = submit(api, finetune)
    assert plain["pilot"] is None
    api.post(f"/v1/jobs/{plain['id']}/cancel")
    pilot = submit(api, finetune, ranks=PAPER, seeds=[17, 18, 19], pilot=True)
    assert pilot["children"]["total"] == 6
    assert pilot["pilot"] == {
        "share_of_cost": pytest.approx(6 / 36),
        "ranks": [8, 16, 32],
        "seeds": [17, 18],
        "steps": [20, 25, 40, 50],
        "far_corner": {"rank": 256, "step": 100},
        "extend": f"/v1/jobs/{pilot['id']}/extend",
        "extended_by": None,
    }
    assert pilot["spec"]["training"]["max_steps"] == 100
    held = claim(store)
    assert held.spec["training"]["max_steps"] == 50


def test_a_pilot_without_room_is_refused_at_the_door(
    sqlite_api: TestClient, finetune: Json, sqlite_store: Store
) -> None:
    body = {"type": "sweep", "ranks": [4, 8, 16], "seeds": [1], "pilot": True}
    refused = sqlite_api.post("/v1/jobs", json=finetune | body)
    assert (refused.status_code, refused.json()["param"]) == (422, "pilot")
    assert sqlite_store.list_jobs() == ([], False)


def finished_pilot(api: TestClient, finetune: Json, store: Store) -> Json:
    """A pilot of six runs, the last of which failed."""
    pilot = submit(api, finetune, ranks=PAPER, seeds=[17, 18, 19], pilot=True)
    for _ in range(5):
        run_next(store)
    store.fail(claim(store), ERROR)
    return pilot


def test_extending_a_pilot_queues_what_it_did_not_measure(
    api: TestClient, finetune: Json, store: Store, bell: Any
) -> None:
    pilot = finished_pilot(api, finetune, store)
    bell.rung.clear()
    answer = api.post(pilot["pilot"]["extend"])
    assert answer.status_code == 202
    whole = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{whole['id']}"
    assert bell.rung == [whole["id"]]
    assert (whole["extends"], whole["pilot"], whole["status"]) == (pilot["id"], None, "queued")
    assert whole["spec"] == pilot["spec"] | {"pilot": False}
    assert show(api, pilot)["pilot"]["extended_by"] == whole["id"]
    params = {"sweep": whole["id"], "limit": 100}
    children = [
        child["spec"]["training"] for child in api.get("/v1/jobs", params=params).json()["data"]
    ]
    assert len(children) == 18
    cut = [c for c in children if c["checkpoints"] != "log-spaced"]
    assert len(cut) == 5
    assert all(c["checkpoints"] == [32, 63, 79, 100] and c["max_steps"] == 100 for c in cut)
    again = api.post(pilot["pilot"]["extend"])
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (whole["id"], "true")
    assert bell.rung == [whole["id"]]


def test_the_law_of_a_continued_sweep_has_the_pilots_points(
    api: TestClient, finetune: Json, store: Store
) -> None:
    pilot = finished_pilot(api, finetune, store)
    whole = api.post(pilot["pilot"]["extend"]).json()
    for _ in range(18):
        run_next(store)
    for job, n_runs in [(pilot, 5), (whole, 5 + 18)]:
        body = {"filter": {"sweep": job["id"]}, "forms": ["linear"]}
        (law,) = api.post("/v1/laws", json=body).json()["data"]
        assert law["n_runs"] == n_runs


def test_only_a_pilot_at_rest_is_extended(api: TestClient, finetune: Json, store: Store) -> None:
    plain = submit(api, finetune)
    refused = api.post(f"/v1/jobs/{plain['id']}/extend")
    assert (refused.status_code, refused.json()["param"]) == (422, "job_id")
    one = store.list_jobs(sweep=plain["id"])[0][0].id
    assert api.post(f"/v1/jobs/{one}/extend").status_code == 422
    assert api.post("/v1/jobs/job_nowhere/extend").status_code == 404
    api.post(f"/v1/jobs/{plain['id']}/cancel")
    pilot = submit(api, finetune, ranks=PAPER, seeds=[17, 18, 19], pilot=True)
    early = api.post(f"/v1/jobs/{pilot['id']}/extend")
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")


def test_a_pilot_whose_continuation_was_deleted_can_be_extended_again(
    api: TestClient, finetune: Json, store: Store
) -> None:
    pilot = finished_pilot(api, finetune, store)
    first = api.post(pilot["pilot"]["extend"]).json()["id"]
    api.post(f"/v1/jobs/{first}/cancel")
    assert api.delete(f"/v1/jobs/{first}").status_code == 204
    assert show(api, pilot)["pilot"]["extended_by"] is None
    second = api.post(pilot["pilot"]["extend"]).json()
    assert second["id"] != first
    api.post(f"/v1/jobs/{second['id']}/cancel")
    assert api.delete(f"/v1/jobs/{pilot['id']}").status_code == 204
    assert show(api, second)["extends"] is None


def test_what_an_extension_measures_is_neither_deleted_nor_measured_beside_it(
    api: TestClient, finetune: Json, store: Store
) -> None:
    pilot = finished_pilot(api, finetune, store)
    runs = [row.id for row in store.list_jobs(sweep=pilot["id"])[0]]
    (failed,) = (child["job"] for child in show(api, pilot)["failed_children"])
    whole = api.post(pilot["pilot"]["extend"]).json()["id"]
    for job in (pilot["id"], runs[0]):
        refused = api.delete(f"/v1/jobs/{job}")
        assert (refused.status_code, refused.json()["code"]) == (409, "still_running")
        assert whole in refused.json()["detail"]
    for job in (pilot["id"], failed):
        refused = api.post(f"/v1/jobs/{job}/resume")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_resumable")
        assert refused.json()["details"] == {"job": whole}
    api.post(f"/v1/jobs/{whole}/cancel")
    assert api.delete(f"/v1/jobs/{whole}").status_code == 204
    assert api.post(f"/v1/jobs/{pilot['id']}/resume").status_code == 202


def test_two_who_extend_at_once_get_one_job(api: TestClient, finetune: Json, store: Store) -> None:
    pilot = finished_pilot(api, finetune, store)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: api.post(pilot["pilot"]["extend"]), range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(store.list_jobs(type="sweep")[0]) == 2
